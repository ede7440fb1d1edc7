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
      - The site's name. C(NAME@INSTANCE) is a site of a template, C(NAME@) the template with all
        its sites.
    type: str
    required: true
  state:
    description:
      - V(up) has the site mounted as its manifest asks for.
      - V(present) has the manifest written and valid, and leaves mounts as they are.
      - V(down) has nothing of the site mounted. The manifest stays.
      - V(absent) has the site down and its manifest away.
      - If a site of a template fails to come up, the others come up, and the template stays as
        written. It is validated first.
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
      - Make the root directory if it does not exist. The roots of a template's sites must exist.
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
  keep_drop_ins:
    description:
      - With O(state=absent), leave the drop-ins for systemd that are only for this site, because
        M(mountjail.mountjail.units) comes later in the play.
    type: bool
    default: false
extends_documentation_fragment:
  - mountjail.mountjail.common
  - mountjail.mountjail.assumed
attributes:
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

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mountjail.mountjail.plugins.module_utils.mountjail import (
    ARGUMENTS,
    ASSUMED,
    CONTENTS,
    Mountjail,
    assumed,
    diffs,
    is_changed,
    is_up,
    put,
    read,
    text_of,
)


def written(name, file, before, after):
    """The result of a manifest that was before, or will be after."""
    return {
        "site": name,
        "changed": before != after,
        "manifest": {"file": file, "changed": before != after},
        "diff": {
            "manifest": {"file": file, "before": before, "after": after},
            "mounts": None,
        },
    }


def apply(module, program, text, dry_run):
    arguments = ["apply", "--name", module.params["name"], "--diff", "-"]
    if module.params["create_root"]:
        arguments.append("--create")
    if dry_run:
        arguments.append("--dry-run")
    elif module.params["restart"]:
        arguments.append("--restart")
    return program.run(arguments, data=text.encode("utf-8"))["sites"][0]


def up(module, program):
    """The sites of a name, brought up by the manifests that are there."""
    name = module.params["name"]
    if module.check_mode:
        return program.run(["plan", name])["sites"]
    restart = ["--restart"] if module.params["restart"] else []
    return program.run(["up", name] + restart)["sites"]


def validate(module, program, text):
    name = module.params["name"]
    if not name.endswith("@"):
        apply(module, program, text, dry_run=True)
        return
    with_text = Mountjail(module)
    with_text.assume({**assumed(module), "sites/%s.yaml" % name: text})
    with_text.run(["check", name])


def present(module, program, file, text):
    """Writes the manifest, and leaves the mounts as they are."""
    name = module.params["name"]
    before = read(file)
    after = before if text is None else text
    if after is None:
        module.fail_json(msg="%s has no manifest; give config or content" % name)
    if before != after:
        validate(module, program, after)
        if not module.check_mode:
            put(module, after, file)
    return written(name, file, before, after)


def of_template(program, name):
    """The sites of a template that are up, or have manifests of their own."""
    sites = program.results(["status"])[1]["sites"]
    return [site for site in sites if site["site"].startswith(name)]


def template_up(module, program, file, text):
    """Writes the template, brings its sites up, and takes those down that it no longer has."""
    name = module.params["name"]
    site = present(module, program, file, text)
    program.assume({} if text is None or not module.check_mode else {"sites/%s.yaml" % name: text})
    sites = up(module, program)
    kept = [one["site"] for one in sites]
    gone = [one for one in of_template(program, name) if one["site"] not in kept and is_up(one)]
    if gone and not module.check_mode:
        program.run(["down"] + [one["site"] for one in gone] + lazy(module))
    site["changed"] = site["changed"] or is_changed(sites) or bool(gone)
    return site


def lazy(module):
    return ["--lazy"] if module.params["lazy"] else []


def down(module, program):
    name = module.params["name"]
    if module.check_mode:
        sites = program.results(["status", name])[1]["sites"]
        changed = any(is_up(site) for site in sites)
    else:
        sites = program.run(["down", name] + lazy(module))["sites"]
        changed = is_changed(sites)
    return {"site": name, **sites[0], "changed": changed} if sites else {"changed": False}


def remove(module, program, name):
    arguments = ["remove", "--if-exists", "--diff", name] + lazy(module)
    if module.params["keep_drop_ins"]:
        arguments.append("--keep-drop-ins")
    if module.check_mode:
        arguments.append("--dry-run")
    return program.run(arguments)["sites"][0]


def template_removed(module, program, file):
    """Takes the template's sites down, and removes its manifest, and those of its sites."""
    name, before = module.params["name"], read(file)
    sites = of_template(program, name)
    own = [
        site["site"]
        for site in sites
        if os.path.lexists(os.path.join(os.path.dirname(file), site["site"] + ".yaml"))
    ]
    changed = before is not None or bool(own) or any(is_up(site) for site in sites)
    if not module.check_mode:
        names = [site["site"] for site in sites if site["site"] not in own]
        if names:
            program.run(["down"] + names + lazy(module))
        if before is not None:
            os.unlink(file)
        for one in own:
            remove(module, program, one)
    return {**written(name, file, before, None), "changed": changed}


def compared(module, file, text):
    """What files alone tell, on a host that has no mountjail yet."""
    before, state = read(file), module.params["state"]
    after = None if state == "absent" else before if text is None else text
    site = written(module.params["name"], file, before, after)
    return {**site, "changed": True} if state == "up" else site


def reached(module, program, text):
    """Has the site in the state that is asked for; returns what is to be told about it."""
    name, state = module.params["name"], module.params["state"]
    file = os.path.join(program.config_dir, "sites", name + ".yaml")
    is_template = name.endswith("@")
    if program.is_missing:
        return compared(module, file, text)
    if state == "present":
        return present(module, program, file, text)
    if state == "down":
        return down(module, program)
    if state == "absent":
        return (
            template_removed(module, program, file)
            if is_template
            else remove(module, program, name)
        )
    if is_template:
        return template_up(module, program, file, text)
    # The manifest that is there is applied again. An instance may have none of its own.
    text = read(file) if text is None else text
    if text is not None:
        return apply(module, program, text, module.check_mode)
    sites = up(module, program)
    return {**sites[0], "changed": is_changed(sites)}


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
            keep_drop_ins=dict(type="bool", default=False),
            **CONTENTS,
            **ARGUMENTS,
            **ASSUMED,
        ),
        mutually_exclusive=[("config", "content")],
        supports_check_mode=True,
    )
    program = Mountjail(module)
    program.assume(assumed(module))
    text, state = text_of(module), module.params["state"]
    if text is not None and state in ("down", "absent"):
        module.fail_json(msg="state=%s takes no manifest" % state)
    site = reached(module, program, text)
    diff = site.pop("diff", None)
    result = {"changed": site.get("changed", False), "site": site}
    if diff is not None:
        result["diff"] = diffs(diff)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
