"""Thin scripts, one per stage: parse, call the library, write an artefact."""
