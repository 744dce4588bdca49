"""Write a run's pictures and its self-contained page, from what the run saved and nothing else."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from crowdnash.files import write_atomically
from crowdnash.reports import taxi
from crowdnash.reports.chart import Picture
from crowdnash.reports.page import page
from crowdnash.reports.pictures import city_of, draw_pictures
from crowdnash.reports.still import draw_picture
from crowdnash.reports.style import rendered
from crowdnash.runs.directory import RunDirectory
from crowdnash.runs.saved_run import SavedRun


def write_report(path: str | PathLike[str]) -> Path:
    """Draw the pictures of a run (PNG and SVG) and write its report.html.

    Args:
        path: the run directory; a run that is not finished gets the pictures it has data for.

    Returns:
        The page, which needs no other file and no network.

    Raises:
        ValueError: not a run directory, a damaged file, or nothing to report yet.
        OSError: a file cannot be written.
    """
    saved = SavedRun.load(path)
    directory = saved.directory
    drawn = [(picture, _write(directory, picture)) for picture in draw_pictures(saved)]
    text = page(saved, drawn, _write_animation(saved))
    write_atomically(directory.report, text.encode())
    return directory.report


def _write(directory: RunDirectory, picture: Picture) -> bytes:
    """Write a picture into the run; return its SVG file."""
    figure = draw_picture(picture)
    files = {suffix: rendered(figure, suffix) for suffix in ("png", "svg")}
    for suffix, content in files.items():
        write_atomically(directory.path / f"{picture.name}.{suffix}", content)
    return files["svg"]


def _write_animation(saved: SavedRun) -> bytes | None:
    """Write the episode as an animated GIF into the run, if its game can be drawn so."""
    city = city_of(saved)
    if city is None or saved.episode is None:
        return None
    path = saved.directory.path / "fleet.gif"
    taxi.save_animation(path, saved.episode.snapshots["position"], city)
    return path.read_bytes()
