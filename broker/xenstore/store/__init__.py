"""The embedded store: a xenstore server in pure Python, for the demo and for fast tests.

Everything but `server.py` and `main.py` is without I/O. The model is C xenstored of Xen 4.17;
docs/xenstore-daemons.md says where the three daemons differ.
"""
