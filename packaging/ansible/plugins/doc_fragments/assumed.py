# -*- coding: utf-8 -*-
# Copyright: the mountjail developers
# SPDX-License-Identifier: MIT OR Apache-2.0

from __future__ import annotations


class ModuleDocFragment(object):
    DOCUMENTATION = r"""
options:
  assumed:
    description:
      - What the tasks before this one would have written. Check mode, in which they have not, then
        tells what this task would do after them. The role gives it.
      - Without check mode it means nothing.
    type: dict
    suboptions:
      defaults:
        description:
          - The whole of C(defaults.yaml).
        type: dict
      presets:
        description:
          - Presets by their names.
        type: dict
      sites:
        description:
          - Manifests by the names of sites. A null is a site that is removed.
        type: dict
"""
