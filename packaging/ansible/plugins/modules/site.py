#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: the mountjail developers
# SPDX-License-Identifier: MIT OR Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: site
short_description: Bring a site of mountjail up, down, or away
version_added: 0.2.0
description:
  - Writes the manifest of a site and brings the site up, both or neither, by C(mountjail apply).
  - Takes a site down, or removes it.
author:
  - mountjail developers (@mountjail)
options:
  name:
    description:
      - The site's name. A site of a template is C(NAME@INSTANCE).
    type: str
    required: true
  state:
    description:
      - V(up) has the site mounted as its manifest asks for.
      - V(present) has the manifest written and valid, and leaves mounts as they are.
      - V(down) has nothing of the site mounted. The manifest stays.
      - V(absent) has the site down and its manifest away.
    type: str
    choices: [up, present, down, absent]
    default: up
  config:
    description:
      - The manifest as a dictionary, as in mountjail.yaml(5).
      - Without this and O(content), V(up) takes the manifest that is there.
    type: dict
  content:
    description:
      - The manifest as text.
    type: str
  create_root:
    description:
      - Make the root directory if it does not exist.
    type: bool
    default: true
  restart:
    description:
      - Reload or restart the site's running services if its mounts change.
    type: bool
    default: false
  lazy:
    description:
      - Detach also what is in use, with O(state=down) and O(state=absent).
    type: bool
    default: false
extends_documentation_fragment:
  - mountjail.mountjail.common
attributes:
  check_mode:
    support: full
    description: Tells exactly whether anything would change.
  diff_mode:
    support: full
    description: Shows the manifest and the mounts before and after.
seealso:
  - module: mountjail.mountjail.site_info
"""

EXAMPLES = r"""
- name: A pool of PHP-FPM with name resolution and certificates
  mountjail.mountjail.site:
    name: shop
    config:
      root: /srv/www/shop
      presets: [dns, tls, timezone]
      users: [www-data]
      services: [php8.2-fpm.service]
    restart: true

- name: The same from a template of the controller
  mountjail.mountjail.site:
    name: shop
    content: "{{ lookup('ansible.builtin.template', 'shop.yaml.j2') }}"

- name: A site that is gone
  mountjail.mountjail.site:
    name: old
    state: absent
"""

RETURN = r"""
site:
  description: What C(mountjail) printed about the site.
  returned: success
  type: dict
  sample:
    {
      "site": "shop",
      "applied": true,
      "changed": true,
      "attached": 34,
      "mounts": 34,
      "manifest": { "file": "/etc/mountjail/sites/shop.yaml", "changed": true },
    }
errors:
  description: What failed, each with C(code), C(site), C(path), C(reason) and C(remedy).
  returned: failure
  type: list
  elements: dict
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mountjail.mountjail.plugins.module_utils.mountjail import (
    ARGUMENTS,
    CONTENTS,
    Mountjail,
    diffs,
    put,
    read,
    staged,
    text_of,
)


def apply(module, program, text):
    arguments = ["apply", "--name", module.params["name"], "--diff", "-"]
    if module.params["create_root"]:
        arguments.append("--create")
    if module.check_mode:
        arguments.append("--dry-run")
    elif module.params["restart"]:
        arguments.append("--restart")
    return program.run(arguments, data=text.encode("utf-8"))["sites"][0]


def up(module, program):
    """Brings a site up by the manifest that it has."""
    name = module.params["name"]
    if module.check_mode:
        site = program.run(["plan", name])["sites"][0]
        site["changed"] = bool(site.get("steps"))
        return site
    arguments = ["up", name]
    for option, argument in (("create_root", "--create"), ("restart", "--restart")):
        if module.params[option]:
            arguments.append(argument)
    return program.run(arguments)["sites"][0]


def present(module, program, text):
    """Writes the manifest, and leaves the mounts as they are."""
    name = module.params["name"]
    file = os.path.join(program.config_dir, "sites", name + ".yaml")
    before = read(file)
    if text is None and before is None:
        module.fail_json(msg="%s has no manifest; give config or content" % name)
    after = before if text is None else text
    site = {
        "site": name,
        "changed": before != after,
        "manifest": {"file": file, "changed": before != after},
        "diff": {
            "manifest": {"file": file, "before": before, "after": after},
            "mounts": None,
        },
    }
    if before != after:
        new = staged(tempfile.mkdtemp(dir=module.tmpdir), name, after)
        program.run(["check", new])
        if not module.check_mode:
            put(module, new, file)
    return site


def down(module, program):
    name = module.params["name"]
    if module.check_mode:
        site = program.run(["status", name])["sites"][0]
        places = site.get("places", [site])
        site["changed"] = any(place.get("state", "down") != "down" for place in places)
        return site
    lazy = ["--lazy"] if module.params["lazy"] else []
    return program.run(["down", name] + lazy)["sites"][0]


def remove(module, program):
    arguments = ["remove", "--if-exists", "--diff", module.params["name"]]
    if module.params["lazy"]:
        arguments.append("--lazy")
    if module.check_mode:
        arguments.append("--dry-run")
    return program.run(arguments)["sites"][0]


def main():
    module = AnsibleModule(
        argument_spec=dict(
            name=dict(type="str", required=True),
            state=dict(
                type="str", choices=["up", "present", "down", "absent"], default="up"
            ),
            create_root=dict(type="bool", default=True),
            restart=dict(type="bool", default=False),
            lazy=dict(type="bool", default=False),
            **CONTENTS,
            **ARGUMENTS,
        ),
        mutually_exclusive=[("config", "content")],
        supports_check_mode=True,
    )
    program = Mountjail(module)
    text, state = text_of(module), module.params["state"]
    if text is not None and state in ("down", "absent"):
        module.fail_json(msg="state=%s takes no manifest" % state)
    if state == "present":
        site = present(module, program, text)
    elif state == "down":
        site = down(module, program)
    elif state == "absent":
        site = remove(module, program)
    elif text is not None:
        site = apply(module, program, text)
    else:
        site = up(module, program)
    diff = site.pop("diff", None)
    result = {"changed": site.get("changed", False), "site": site}
    if diff is not None:
        result["diff"] = diffs(diff)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
