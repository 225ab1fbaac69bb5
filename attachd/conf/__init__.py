"""attachd's options: one file a group, a ConfigOpts handed around, never the global one.

A group's file holds its ``GROUP`` and its ``OPTS``; the daemon's assembly reads the values and
hands them to constructors, so no room behind it knows of oslo.config.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from oslo_config import cfg
from oslo_log import log

from attachd.conf import api, brick, cinder, default, guest, host, metrics, trace
from attachd.errors import AttachdError, Code

DEFAULT_FILE = Path("/etc/attachd/attachd.conf")
GROUPS: tuple[ModuleType, ...] = (default, api, brick, cinder, guest, host, metrics, trace)
_GROUP_NAMES = tuple(module.GROUP for module in GROUPS)


def new_config() -> cfg.ConfigOpts:
    """A ConfigOpts with every option of attachd registered and nothing read yet."""
    config = cfg.ConfigOpts()
    log.register_options(config)
    for module in GROUPS:
        config.register_opts(module.OPTS, group=_registered_as(module))
    return config


def load(arguments: Sequence[str], *, files: Sequence[Path] | None = None) -> cfg.ConfigOpts:
    """Read the configuration; raise config-invalid naming the file, the group and the option."""
    config = new_config()
    set_defaults()
    try:
        config(
            list(arguments),
            project="attachd",
            prog="attachd",
            version=f"attachd {version('attachd')}",
            description="Attaches Cinder volumes to libvirt guests, and takes them off again: the "
            "daemon. systemd starts it; attachctl is what talks to it.",
            default_config_files=[str(f) for f in files] if files is not None else _default_files(),
        )
        _read_every_value(config)
        _refuse_unknown_options(config)
    except cfg.ConfigFilesNotFoundError as exc:
        raise _invalid(
            str(exc), resolution="Create the file, or name another: --config-file."
        ) from exc
    except cfg.ConfigFilesPermissionDeniedError as exc:
        raise _invalid(str(exc), resolution="Make the file readable for root.") from exc
    except (cfg.ParseError, cfg.ConfigFileParseError) as exc:
        raise _invalid(str(exc)) from exc
    except UnicodeDecodeError as exc:
        named = files or _default_files()
        raise _invalid(
            f"{', '.join(map(str, named))}: {exc}", resolution="Write the file in UTF-8."
        ) from exc
    return config


def _default_files() -> list[str]:
    return [str(DEFAULT_FILE)] if DEFAULT_FILE.exists() else []


def _read_every_value(config: cfg.ConfigOpts) -> None:
    """oslo.config checks a value only when it is read: read all of them now, not in an attach."""
    for module in GROUPS:
        group = _registered_as(module)
        values = config[group] if group else config
        for opt in module.OPTS:
            try:
                values[opt.dest]
            except (cfg.Error, ValueError) as exc:  # also a $name that stands for nothing
                raise _invalid(
                    f"[{module.GROUP}] {opt.name} in {_files(config)}: {exc}",
                    resolution=f"Set it to a value as described: {opt.help}",
                ) from exc


def _refuse_unknown_options(config: cfg.ConfigOpts) -> None:
    """oslo.config passes over what it doesn't know: a misspelt deadline would be no deadline.

    Whole groups that aren't attachd's are left alone: a file may be shared with other services.
    """
    for file in config.config_file or ():
        sections: dict[str, dict[str, list[str]]] = {}
        cfg.ConfigParser(file, sections).parse()
        for group, values in sections.items():
            known = _known_options(config, group)
            unknown = [name for name in values if known and name.replace("-", "_") not in known]
            if unknown:
                raise _invalid(
                    f"[{group}] {unknown[0]} in {file}: there is no such option",
                    resolution=f"{_credentials_hint(config, group)}"
                    f"Known in [{group}]: {', '.join(sorted(known))}",
                )
            if not known and difflib.get_close_matches(group, _GROUP_NAMES, cutoff=0.8):
                raise _invalid(
                    f"[{group}] in {file}: there is no such group",
                    resolution=f"Known: {', '.join(_GROUP_NAMES)}",
                )


def _credentials_hint(config: cfg.ConfigOpts, group: str) -> str:
    """Which credentials there are is auth_type's to say."""
    if group != cinder.GROUP or config.cinder.auth_type is not None:
        return ""
    return "Set auth_type first: with auth_type = password there are username, password and so on. "


def _known_options(config: cfg.ConfigOpts, group: str) -> set[str]:
    if group not in _GROUP_NAMES:
        return set()
    known = set(config if group == "DEFAULT" else config[group])
    if group == cinder.GROUP:
        known |= cinder.credential_options(config.cinder.auth_type)
    return known


def _registered_as(module: ModuleType) -> str | None:
    """oslo.config knows the group of an unnamed section as None."""
    return None if module.GROUP == "DEFAULT" else module.GROUP


def _files(config: cfg.ConfigOpts) -> str:
    return ", ".join(config.config_file or config.default_config_files or []) or "no file"


def _invalid(
    details: str, *, resolution: str = "Mend the file and start attachd again."
) -> AttachdError:
    return AttachdError(
        Code.CONFIG_INVALID,
        "The configuration can't be used.",
        details=details,
        resolution=resolution,
        touched=False,
    )


def set_defaults() -> None:
    """Quieten the libraries whose DEBUG shows request bodies and commands: they have secrets."""
    log.set_defaults(
        default_log_levels=[
            *log.get_default_log_levels(),
            "keystoneauth=WARN",
            "openstack=WARN",
            "urllib3=WARN",
            "os_brick=INFO",
            "oslo_privsep=INFO",
            "oslo.privsep=INFO",
            "oslo_concurrency=INFO",
        ]
    )


def list_opts() -> list[tuple[object, list[cfg.Opt]]]:
    """The entry point of oslo-config-generator: the sample file is made from this."""
    return [(group.GROUP, [*group.OPTS, *getattr(group, "SAMPLE_OPTS", ())]) for group in GROUPS]
