"""Pictures and the page of a run, from saved files only."""
