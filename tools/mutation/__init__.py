"""Mutation testing of the pure cores: every change of the code that no test notices is named."""
