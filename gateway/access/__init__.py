"""Decides who may do what. Pure: no I/O, no clock of its own, knows neither HTTP nor MongoDB."""
