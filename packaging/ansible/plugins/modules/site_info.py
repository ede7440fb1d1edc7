#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: the mountjail developers
# SPDX-License-Identifier: MIT OR Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: site_info
short_description: Tell the state of mountjail's sites
version_added: 0.2.0
description:
  - Returns what C(mountjail status) tells. Nothing is changed.
  - A site that has mistakes does not hide the others. The module fails only if nothing can be told.
author:
  - mountjail developers (@mountjail)
options:
  name:
    description:
      - The sites. Without it, all of the configuration and of the records.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - mountjail.mountjail.common
attributes:
  check_mode:
    support: full
    description: Nothing is changed.
  diff_mode:
    support: N/A
    description: Nothing is changed.
seealso:
  - module: mountjail.mountjail.site
"""

EXAMPLES = r"""
- name: Look at all sites
  mountjail.mountjail.site_info:
  register: jails

- name: Name those that are not up
  ansible.builtin.debug:
    msg: "{{ jails.sites | rejectattr('state', 'equalto', 'up') | map(attribute='site') }}"
"""

RETURN = r"""
sites:
  description:
    - The sites, each with C(site), C(root), C(state), C(reasons), C(mounts) and C(outdated), the
      processes that still use old files.
    - A site that has mistakes has them in C(errors). Its C(state) may be missing.
    - A site whose mounts are in its services has C(places), each with C(unit), C(state) and so on.
  returned: always
  type: list
  elements: dict
  sample: [{ "site": "shop", "root": "/srv/www/shop", "state": "up", "reasons": [] }]
templates:
  description: The templates of sites that the configuration has, such as C(customer@).
  returned: always
  type: list
  elements: str
watch:
  description: The watcher, or null if none runs.
  returned: always
  type: dict
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mountjail.mountjail.plugins.module_utils.mountjail import (
    ARGUMENTS,
    Mountjail,
)


def templates(directory):
    files = os.listdir(directory) if os.path.isdir(directory) else []
    return sorted(file[: -len(".yaml")] for file in files if file.endswith("@.yaml"))


def main():
    module = AnsibleModule(
        argument_spec=dict(name=dict(type="list", elements="str", default=[]), **ARGUMENTS),
        supports_check_mode=True,
    )
    program = Mountjail(module)
    found = {"sites": [], "watch": None}
    directory = os.path.join(program.config_dir, "sites")
    if os.path.isdir(directory) and not program.is_missing:
        found = program.results(["status"] + module.params["name"])[1]
    module.exit_json(
        changed=False,
        sites=found["sites"],
        templates=templates(directory),
        watch=found["watch"],
    )


if __name__ == "__main__":
    main()
