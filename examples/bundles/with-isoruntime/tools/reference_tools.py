"""Facts that a sealed program cannot look up by itself."""

import isorun

_SPECIES = {
    "Adelie": ("Pygoscelis adeliae", "Hombron & Jacquinot, 1841"),
    "Chinstrap": ("Pygoscelis antarcticus", "Forster, 1781"),
    "Gentoo": ("Pygoscelis papua", "Forster, 1781"),
}


@isorun.tool
def species(name: str) -> dict[str, str]:
    """Return the scientific name of a penguin, and who described it.

    Args:
        name: Adelie, Chinstrap or Gentoo.
    """
    if name not in _SPECIES:
        raise isorun.ToolError(f"there is no entry for {name!r}; there are {', '.join(_SPECIES)}")
    scientific, described = _SPECIES[name]
    return {"scientific_name": scientific, "described_by": described}
