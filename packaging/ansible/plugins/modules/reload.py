#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: the mountjail developers
# SPDX-License-Identifier: MIT OR Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: reload
short_description: Bring all sites that are up in line with the configuration
version_added: 0.2.0
description:
  - Has the sites that are up follow what changed in C(defaults.yaml), presets, templates and on the
    host. Sites that are down stay down. It is meant for handlers.
author:
  - mountjail developers (@mountjail)
options:
  except:
    description:
      - Sites to leave alone, such as those that a play brings up by themselves. C(NAME@) is all
        sites of a template.
    type: list
    elements: str
    default: []
  restart:
    description:
      - Reload or restart the running services of sites whose mounts change.
    type: bool
    default: false
extends_documentation_fragment:
  - mountjail.mountjail.common
  - mountjail.mountjail.assumed
attributes:
  diff_mode:
    support: none
    description: The module M(mountjail.mountjail.site) shows a site's mounts.
seealso:
  - module: mountjail.mountjail.site
"""

EXAMPLES = r"""
- name: Have sites follow new certificates
  mountjail.mountjail.reload:
    restart: true
"""

RETURN = r"""
sites:
  description: What C(mountjail) printed about each site.
  returned: success
  type: list
  elements: dict
  sample: [{ "site": "shop", "up": true, "changed": true, "attached": 2, "mounts": 34 }]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mountjail.mountjail.plugins.module_utils.mountjail import (
    ARGUMENTS,
    ASSUMED,
    Mountjail,
    assumed,
    is_changed,
    is_up,
)


def of_these(site, names):
    """Whether a site has one of these names, or is of a template with one."""
    return site in names or site.partition("@")[0] + "@" in names


def main():
    module = AnsibleModule(
        argument_spec={
            "except": dict(type="list", elements="str", default=[]),
            "restart": dict(type="bool", default=False),
            **ARGUMENTS,
            **ASSUMED,
        },
        supports_check_mode=True,
    )
    program = Mountjail(module)
    program.assume(assumed(module))
    sites = []
    if not program.is_missing:
        sites = program.results(["status"])[1]["sites"]
    names = [site["site"] for site in sites if is_up(site)]
    names = [name for name in names if not of_these(name, module.params["except"])]
    if not names:
        module.exit_json(changed=False, sites=[])
    command = ["up", "--if-up"] + names
    if module.check_mode:
        command = ["plan"] + names
    elif module.params["restart"]:
        command.append("--restart")
    sites = program.run(command)["sites"]
    module.exit_json(changed=is_changed(sites), sites=sites)


if __name__ == "__main__":
    main()
