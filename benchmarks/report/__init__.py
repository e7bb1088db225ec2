"""Reports of a benchmark run: tables, charts, HTML, gates."""
