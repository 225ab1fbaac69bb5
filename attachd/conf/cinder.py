"""[cinder]: whom attachd is to Keystone, where Cinder is, and how patient it is with both.

The credentials' options are keystoneauth's own: ``auth_type`` names a plugin, and keystoneauth
registers that plugin's options when it loads it. ``SAMPLE_OPTS`` has those of the plugin
``password`` for the sample file; were they registered, too, they would collide with the options of
the same name that other plugins (v3password, v3applicationcredential) describe in other words.
"""

from __future__ import annotations

from keystoneauth1 import exceptions, loading
from oslo_config import cfg

GROUP = "cinder"

OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "attach_flow",
        default="auto",
        choices=[
            ("auto", "attachments where Cinder's API offers them, else volume-actions"),
            ("attachments", "the new style, since microversion 3.44: each attachment has an id"),
            (
                "volume-actions",
                "the old style, of any v3 API: os-reserve, os-initialize_connection, os-attach",
            ),
        ],
        help="How a volume is attached from now on. What is attached already is detached in the "
        "style in which it was attached.",
    ),
    cfg.StrOpt(
        "region_name",
        help="The region whose Cinder is used, as Keystone's catalogue names it. "
        "Unset: the catalogue's first.",
    ),
    cfg.StrOpt(
        "interface",
        default="public",
        choices=["public", "internal", "admin"],
        help="Which of Cinder's endpoints in Keystone's catalogue is used.",
    ),
    cfg.StrOpt(
        "cafile",
        help="File with the CA certificates by which Keystone and Cinder prove who they are. "
        "Unset: the system's.",
    ),
    cfg.BoolOpt(
        "insecure",
        default=False,
        help="Talk to Keystone and Cinder without checking their certificates.",
    ),
    cfg.FloatOpt(
        "auth_timeout",
        default=60,
        min=1,
        help="Seconds that Keystone has for one answer.",
    ),
    cfg.FloatOpt(
        "connect_timeout",
        default=10,
        min=1,
        help="Seconds that a connection to Cinder has to come about.",
    ),
    cfg.FloatOpt(
        "query_timeout",
        default=60,
        min=1,
        help="Seconds that Cinder has to answer a request that only reads.",
    ),
    cfg.FloatOpt(
        "request_timeout",
        default=180,
        min=1,
        help="Seconds that Cinder has to answer a request that changes something. An attachment's "
        "update waits for the backend to export the volume; make it longer than Cinder's own "
        "rpc_response_timeout.",
    ),
    cfg.FloatOpt(
        "delete_timeout",
        default=120,
        min=1,
        help="Seconds that an attachment has to disappear once Cinder accepted to delete it.",
    ),
    cfg.FloatOpt(
        "orphan_timeout",
        default=90,
        min=1,
        help="Seconds that Cinder may go on with a request whose caller is gone: for so long after "
        "a lost answer, or attachd's own end, a late effect is waited for before anything is "
        "undone. Make it longer than Cinder's rpc_response_timeout.",
    ),
    cfg.IntOpt(
        "exports_at_once",
        default=3,
        min=1,
        max=64,
        help="How many volumes of one backend are reserved and exported at once for attaches of "
        "this host; further ones wait, up to lock_timeout, having touched nothing. Backends make "
        "one export after another, so that more at once end no sooner, and may run into Cinder's "
        "rpc_response_timeout.",
    ),
    cfg.FloatOpt(
        "extend_timeout",
        default=300,
        min=1,
        help="Seconds that a volume may be extending once Cinder accepted to extend it.",
    ),
    cfg.IntOpt(
        "retries",
        default=4,
        min=0,
        help="How often a request is repeated after a broken connection, a timeout or one of the "
        "statuses 500, 502, 503, 504. Before a request that changes something is repeated, Cinder "
        "is asked whether the last one had its effect.",
    ),
    cfg.FloatOpt(
        "retry_pause",
        default=1,
        min=0.01,
        help="Seconds before the first repetition; doubled before each further one, up to 15.",
    ),
    cfg.FloatOpt(
        "retry_deadline",
        default=120,
        min=1,
        help="Seconds after its first try beyond which a request isn't repeated any more.",
    ),
    *loading.get_auth_common_conf_options(),
]

SAMPLE_OPTS: list[cfg.Opt] = loading.get_auth_plugin_conf_options("password")


def credential_options(auth_type: str | None) -> set[str]:
    """What the options of an auth plugin are called; nothing where there is no such plugin."""
    if auth_type is None:
        return set()
    try:
        options = loading.get_auth_plugin_conf_options(auth_type)
    except exceptions.NoMatchingPlugin:
        return set()
    earlier = [each.name for option in options for each in option.deprecated_opts if each.name]
    return {option.dest for option in options} | {name.replace("-", "_") for name in earlier}
