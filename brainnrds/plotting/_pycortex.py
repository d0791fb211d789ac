"""pycortex on our templates: silent, a store of our own, the user's configuration untouched."""

import atexit
import configparser
import contextlib
import functools
import io
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

__all__ = ["lend_pycortex"]


@contextlib.contextmanager
def lend_pycortex(template):
    """Lend pycortex, its database pointed at our templates, silently; put everything back."""
    noise = io.StringIO()
    with (
        contextlib.redirect_stdout(noise),
        contextlib.redirect_stderr(noise),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        cortex = _import_pycortex()
        store, subject = _pycortex_store(os.getpid()), f"brainnrds-{template.name}"
        _write_pycortex_subject(cortex, store, subject, template)
        defaults = configparser.ConfigParser()
        defaults.read(Path(cortex.__file__).with_name("defaults.cfg"))
        ours = {("basic", "cache"): str(store)}
        if defaults.has_option("webgl", "colormaps"):
            # a config written by another environment points at colour maps that are gone
            ours["webgl", "colormaps"] = defaults.get("webgl", "colormaps")
        config, database = cortex.options.config, cortex.db
        theirs = {key: config.get(*key, fallback=None) for key in ours}
        filestore, subjects = database.filestore, database._subjects
        try:
            for key, value in ours.items():
                config.set(*key, value)
            database.filestore, database._subjects = str(store), None
            yield cortex, subject
        finally:
            database.filestore, database._subjects = filestore, subjects
            for key, value in theirs.items():
                if value is None:
                    config.remove_option(*key)
                else:
                    config.set(*key, value)


def _import_pycortex():
    """Import pycortex; where the user has no pycortex configuration it must not write one."""
    if "cortex" not in sys.modules:
        config_home = os.environ.get("XDG_CONFIG_HOME")
        homes = [
            Path(config_home) if config_home else Path.home() / ".config",
            Path.home() / "Library" / "Application Support",
        ]
        if not any((home / "pycortex" / "options.cfg").exists() for home in homes):
            scratch = tempfile.mkdtemp(prefix="brainnrds-pycortex-")
            names = ("XDG_CONFIG_HOME", "HOME")
            before = {name: os.environ.get(name) for name in names}
            try:
                os.environ.update(dict.fromkeys(names, scratch))
                import cortex
            finally:
                for name, value in before.items():
                    if value is None:
                        os.environ.pop(name, None)
                    else:
                        os.environ[name] = value
                shutil.rmtree(scratch, ignore_errors=True)
    import cortex

    return cortex


@functools.cache
def _pycortex_store(process):
    """A filestore of our own, one per process: pycortex does not write its caches atomically."""
    store = Path(tempfile.mkdtemp(prefix=f"brainnrds-pycortex-{process}-"))
    atexit.register(shutil.rmtree, store, ignore_errors=True)
    return store


def _write_pycortex_subject(cortex, store, subject, template):
    if (store / subject).exists():
        return
    unfinished = store / f".{subject}"
    shutil.rmtree(unfinished, ignore_errors=True)
    for name in ("surfaces", "anatomicals", "transforms", "surface-info", "cache", "views"):
        (unfinished / name).mkdir(parents=True)
    names = {"pial": "pia", "white": "wm", "inflated": "inflated", "flat": "flat"}
    for ours, theirs in names.items():
        for side, letters in (("left", "lh"), ("right", "rh")):
            xyz, faces = template.meshes[ours][side]
            path = unfinished / "surfaces" / f"{theirs}_{letters}.gii"
            cortex.formats.write_gii(str(path), pts=xyz, polys=faces)
    # pycortex's sign: positive is drawn as a sulcus or gyrus alike; ours is positive on gyri
    np.savez(unfinished / "surface-info" / "curvature.npz", **template.curvature)
    unfinished.rename(store / subject)
