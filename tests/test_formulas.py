"""Formulas held to values from outside, where a small fault in the formula would pass every other test."""
