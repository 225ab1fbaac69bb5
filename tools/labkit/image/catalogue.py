"""Fills Keystone's catalogue; runs at build time inside the image, next to a Keystone of its own.

Through the slow machine the same takes six minutes.
"""

import os

from keystoneauth1 import session
from keystoneauth1.identity import v3

KEYSTONE = "http://127.0.0.1:5000/v3"
CINDER = "http://127.0.0.1:8776/v3/%(project_id)s"


class Keystone:
    """The few calls of Keystone's API that it takes."""

    def __init__(self, password: str) -> None:
        auth = v3.Password(
            auth_url=KEYSTONE,
            username="admin",
            password=password,
            project_name="admin",
            user_domain_id="default",
            project_domain_id="default",
        )
        self._session = session.Session(auth=auth)

    def create(self, kind: str, **attributes: str) -> str:
        """Create an object and return its id."""
        answer = self._session.post(f"{KEYSTONE}/{kind}s", json={kind: attributes})
        return str(answer.json()[kind]["id"])

    def roles(self) -> dict[str, str]:
        """Return the ids of the roles that bootstrapping made, by name."""
        roles = self._session.get(f"{KEYSTONE}/roles").json()["roles"]
        return {role["name"]: role["id"] for role in roles}

    def grant(self, project: str, user: str, role: str) -> None:
        """Give a user a role in a project."""
        self._session.put(f"{KEYSTONE}/projects/{project}/users/{user}/roles/{role}")


def main() -> None:
    """Create projects, users and their roles, and Cinder's endpoints."""
    keystone = Keystone(os.environ["ADMIN_PASSWORD"])
    roles = keystone.roles()
    service = keystone.create("project", name="service", domain_id="default")
    demo = keystone.create("project", name="demo", domain_id="default")
    for name, project, granted in (
        ("cinder", service, ("admin", "service")),
        ("attachd", service, ("admin", "service")),
        ("demo", demo, ("member",)),
    ):
        password = os.environ[f"{name.upper()}_PASSWORD"]
        user = keystone.create("user", name=name, domain_id="default", password=password)
        for role in granted:
            keystone.grant(project, user, roles[role])
    volume = keystone.create("service", name="cinderv3", type="volumev3")
    for interface in ("public", "internal", "admin"):
        endpoint = {"interface": interface, "region_id": "RegionOne", "url": CINDER}
        keystone.create("endpoint", service_id=volume, **endpoint)


if __name__ == "__main__":
    main()
