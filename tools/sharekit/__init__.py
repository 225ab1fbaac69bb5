"""What `tools/share` writes: man pages and completions, made from the program itself.

* ``files.py``: which files there are, where they belong below /usr/share, and the command.
* ``attachctl_page.py``, ``attachd_page.py``, ``configuration_page.py``: the man pages. Commands and
  options are those of the parsers that also make --help, exit statuses and configuration options
  those of the code; only what these can't say stands here.
* ``arguments.py``: what the pages need to know of an argparse parser.
* ``roff.py``: the language of man pages.
"""
