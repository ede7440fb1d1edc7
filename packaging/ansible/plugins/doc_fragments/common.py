# -*- coding: utf-8 -*-
# Copyright: the mountjail developers
# SPDX-License-Identifier: MIT OR Apache-2.0

from __future__ import annotations


class ModuleDocFragment(object):
    DOCUMENTATION = r"""
options:
  executable:
    description:
      - The program C(mountjail). Without a slash, it is looked up.
    type: str
    default: mountjail
  config_dir:
    description:
      - The directory of sites, presets and C(defaults.yaml).
      - Without it, C(/etc/mountjail).
    type: path
  state_dir:
    description:
      - The directory of the records.
      - Without it, C(/run/mountjail) and C(/var/lib/mountjail).
    type: path
  timeout:
    description:
      - How many seconds a site's file systems may be silent before the site is given up.
      - Without it, 10; 0 waits for ever.
    type: int
attributes:
  check_mode:
    support: full
    description: Tells exactly whether anything would change.
requirements:
  - mountjail 0.2.0 or later on the host
  - root (O(ignore:become))
"""
