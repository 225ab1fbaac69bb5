"""What the harness does in Keystone, as DevStack does it with the openstack client.

usage: keystone.py user NAME PASSWORD DOMAIN
       keystone.py role ROLE USER PROJECT USER_DOMAIN PROJECT_DOMAIN

Either prints the id of what is there then, made now or before. The password of a user who is there
already stays as it is. The cloud is ``lab`` in $OS_CLIENT_CONFIG_FILE.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import openstack


def main(kind: str, *words: str) -> None:
    """Run one command."""
    identity = openstack.connect(cloud="lab").identity
    commands: dict[str, Callable[..., Any]] = {"user": user, "role": role}
    made = commands[kind](identity, *words)
    print(made.id)  # noqa: T201 - what a shell function answers


def user(identity: Any, name: str, password: str, domain: str) -> Any:
    """Get or create a user."""
    domain_id = _domain(identity, domain)
    found = identity.find_user(name, domain_id=domain_id)
    return found or identity.create_user(name=name, password=password, domain_id=domain_id)


def role(
    identity: Any, name: str, user_name: str, project: str, user_domain: str, project_domain: str
) -> Any:
    """Get or give a user's role in a project."""
    granted = identity.find_role(name, ignore_missing=False)
    identity.assign_project_role_to_user(
        identity.find_project(
            project, ignore_missing=False, domain_id=_domain(identity, project_domain)
        ),
        identity.find_user(
            user_name, ignore_missing=False, domain_id=_domain(identity, user_domain)
        ),
        granted,
    )
    return granted


def _domain(identity: Any, name: str) -> str:
    return str(identity.find_domain(name, ignore_missing=False).id)


if __name__ == "__main__":
    main(*sys.argv[1:])
