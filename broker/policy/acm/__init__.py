"""Policies of sHype/ACM, Xen's label policies of 2005 to 2013: read, checked, written."""
