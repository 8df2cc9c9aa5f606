"""Sphinx configuration. Build with ``python -m sphinx -n -W -b html docs docs/_build/html``; nothing is fetched."""

import inspect
import re

from docutils import nodes
from sphinx.util.logging import getLogger

import roofline
from roofline.deployment.options import OPTIONS

logger = getLogger(__name__)

project = "roofline"
author = "The roofline authors"
copyright = "The roofline authors, Apache-2.0"
release = roofline.__version__
version = release

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "data", "jupyter_execute", "**.ipynb_checkpoints"]
nitpicky = True
# Targets outside this documentation: no inventory is fetched, so they cannot be resolved.
nitpick_ignore_regex = [("py:.*", r"(numpy|np|pydantic|pydantic_core|pathlib|fractions|collections|concurrent|typing|types|abc)(\..*)?")]

# pages: every notebook page (front matter `file_format: mystnb`) runs at each build, and an error fails it
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "substitution"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 180
nb_merge_streams = True
nb_render_markdown_format = "gfm"  # tables that notebook pages make

# reference: types stand in the docstrings, beside the units
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "no-value": True}
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
add_module_names = False


def public_surface() -> str:
    """Return the names of `roofline.__all__` as a table, each linked to the module or package that documents it."""
    rows = ["| name | what it is |", "| --- | --- |"]
    for name in roofline.__all__:
        thing = getattr(roofline, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            summary = inspect.getdoc(thing).partition("\n")[0].replace("|", "\\|")
            summary = re.sub(r":math:`([^`]*)`", r"$\1$", summary)
            summary = re.sub(r":\w+:`[~.]?([^`]*)`", r"`\1`", summary)
            home = ".".join(thing.__module__.split(".")[:2])
            rows.append(f"| {{py:obj}}`{name} <{home}.{thing.__qualname__}>` | {summary} |")
    return "\n".join(rows)


def deployment_options() -> str:
    """Return the options of a deployment as a table, from where they are defined."""
    rows = ["| option | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, option in OPTIONS.items():
        rows.append(f"| `{name}` [{option.unit}] | {option.types} | `{option.default!r}` | {option.text}{option.also} |")
    return "\n".join(rows)


myst_substitutions = {"public_surface": public_surface(), "deployment_options": deployment_options()}

html_theme = "furo"
html_title = f"roofline {release}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["roofline.css"]


def sections_to_rubrics(app, what, name, obj, options, lines) -> None:
    """Make the sections of a module's docstring (References, Notes) headings that do not enter the page's outline."""
    if what == "module":
        lines[:] = re.sub(r"^(\w.*)\n-{3,}$", r".. rubric:: \1\n", "\n".join(lines), flags=re.MULTILINE).split("\n")


def find_as_spelled(app, env, node, contnode):
    """Resolve a name as code spells it, if one documented thing alone fits: `Model.load`, or data by the package that re-exports it."""
    if node.get("refdomain") != "py":
        return None
    domain = env.get_domain("py")
    target = node["reftarget"]
    package, _, last = target.rpartition(".")
    found = [n for n in domain.objects if n.endswith("." + target)]
    found = found or [n for n in domain.objects if n.startswith(package + ".") and n.endswith("." + last)]
    if len(found) != 1:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], found[0], node, contnode)


def refuse_raw_tables(app, doctree, docname) -> None:
    """Warn of a paragraph that starts with a pipe: a table that was not rendered as one."""
    for paragraph in doctree.findall(nodes.paragraph):
        if paragraph.astext().startswith("|"):
            logger.warning("a table is not rendered: %s", paragraph.astext()[:60], location=paragraph)


def setup(app) -> None:
    """Connect the hooks above."""
    app.connect("autodoc-process-docstring", sections_to_rubrics)
    app.connect("missing-reference", find_as_spelled)
    app.connect("doctree-resolved", refuse_raw_tables)
