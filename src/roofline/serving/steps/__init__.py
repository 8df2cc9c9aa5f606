"""How long steps of an engine take: from estimates, floors or a fit, compiled to tables that a simulation reads."""
