"""Fills Keystone's catalogue; runs at build time inside the image, next to a Keystone of its own.

Through the slow machine the same takes six minutes.
"""

import os

from keystoneauth1 import session
from keystoneauth1.identity import v3
from keystoneclient.v3 import client

KEYSTONE = "http://127.0.0.1:5000/v3"
CINDER = "http://127.0.0.1:8776/v3/%(project_id)s"


def main() -> None:
    """Create projects, users and roles, and Cinder's endpoints."""
    auth = v3.Password(
        auth_url=KEYSTONE,
        username="admin",
        password=os.environ["ADMIN_PASSWORD"],
        project_name="admin",
        user_domain_id="default",
        project_domain_id="default",
    )
    keystone = client.Client(session=session.Session(auth=auth), endpoint_override=KEYSTONE)
    roles = {role.name: role for role in keystone.roles.list()}
    for name in ("service", "member"):
        if name not in roles:
            roles[name] = keystone.roles.create(name)

    def user(name: str, password: str, project: object, granted: list[str]) -> None:
        account = keystone.users.create(
            name, domain="default", password=password, default_project=project
        )
        for role in granted:
            keystone.roles.grant(roles[role], user=account, project=project)

    service = keystone.projects.create("service", domain="default")
    demo = keystone.projects.create("demo", domain="default")
    user("cinder", os.environ["CINDER_PASSWORD"], service, ["admin", "service"])
    user("attachd", os.environ["ATTACHD_PASSWORD"], service, ["admin", "service"])
    user("demo", os.environ["DEMO_PASSWORD"], demo, ["member"])

    volume = keystone.services.create("cinderv3", type="volumev3", description="Block storage")
    for interface in ("public", "internal", "admin"):
        keystone.endpoints.create(volume, CINDER, interface=interface, region="RegionOne")


if __name__ == "__main__":
    main()
