#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: the mountjail developers
# SPDX-License-Identifier: MIT OR Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: preset
short_description: Write presets of mountjail
version_added: 0.2.0
description:
  - Writes or removes a preset in C(presets) of the configuration. It is validated first.
  - Sites that include it change with the next C(mountjail up), or at once by C(mountjail watch).
author:
  - mountjail developers (@mountjail)
options:
  name:
    description:
      - The preset's name.
    type: str
    required: true
  state:
    description:
      - Whether the preset is there.
    type: str
    choices: [present, absent]
    default: present
  config:
    description:
      - The preset as a dictionary, with C(description).
    type: dict
  content:
    description:
      - The preset as text.
    type: str
extends_documentation_fragment:
  - mountjail.mountjail.common
attributes:
  diff_mode:
    support: full
    description: Shows the preset before and after.
seealso:
  - module: mountjail.mountjail.site
"""

EXAMPLES = r"""
- name: What every shop needs
  mountjail.mountjail.preset:
    name: shop
    config:
      description: What every shop needs
      presets: [dns, tls]
      programs: [/usr/bin/gs]
"""

RETURN = r"""
file:
  description: The preset's file.
  returned: success
  type: str
  sample: /etc/mountjail/presets/shop.yaml
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mountjail.mountjail.plugins.module_utils.mountjail import (
    ARGUMENTS,
    CONTENTS,
    Mountjail,
    put,
    read,
    text_diff,
    text_of,
)


def main():
    module = AnsibleModule(
        argument_spec=dict(
            name=dict(type="str", required=True),
            state=dict(type="str", choices=["present", "absent"], default="present"),
            **CONTENTS,
            **ARGUMENTS,
        ),
        mutually_exclusive=[("config", "content")],
        required_if=[("state", "present", ("config", "content"), True)],
        supports_check_mode=True,
    )
    program = Mountjail(module)
    name = module.params["name"]
    after = text_of(module) if module.params["state"] == "present" else None
    file = os.path.join(program.config_dir, "presets", name + ".yaml")
    before = read(file)
    if before != after:
        if after is not None and not program.is_missing:
            program.assume({"presets/%s.yaml" % name: after})
            program.run(["presets", name])
        if not module.check_mode and after is not None:
            put(module, after, file)
        elif not module.check_mode:
            os.unlink(file)
    diff = text_diff(file, before, after)
    module.exit_json(changed=before != after, file=file, diff=diff)


if __name__ == "__main__":
    main()
