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
  check_mode:
    support: full
    description: Tells exactly whether anything would change.
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
import tempfile

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mountjail.mountjail.plugins.module_utils.mountjail import (
    ARGUMENTS,
    CONTENTS,
    Mountjail,
    put,
    read,
    staged,
    text_of,
)


def validated(module, program, text):
    """The text in a file that can be moved to its place, after mountjail has read it."""
    name = module.params["name"]
    directory = tempfile.mkdtemp(dir=module.tmpdir)
    for part in ("sites", "presets"):
        os.mkdir(os.path.join(directory, part))
    known = os.path.join(program.config_dir, "presets")
    for other in os.listdir(known) if os.path.isdir(known) else []:
        if other.endswith(".yaml") and other != name + ".yaml":
            os.symlink(os.path.join(known, other), os.path.join(directory, "presets", other))
    new = staged(os.path.join(directory, "presets"), name, text)
    command = [program.command[0], "--config-dir", directory, "presets", name, "--json"]
    code, dummy, err = module.run_command(command)
    if code != 0:
        module.fail_json(msg=err.strip(), rc=code)
    return new


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
    after = text_of(module) if module.params["state"] == "present" else None
    file = os.path.join(program.config_dir, "presets", module.params["name"] + ".yaml")
    before = read(file)
    if before != after:
        new = validated(module, program, after) if after is not None else None
        if not module.check_mode and new is not None:
            put(module, new, file)
        elif not module.check_mode:
            os.unlink(file)
    diff = {
        "before_header": file,
        "after_header": file,
        "before": before or "",
        "after": after or "",
    }
    module.exit_json(changed=before != after, file=file, diff=diff)


if __name__ == "__main__":
    main()
