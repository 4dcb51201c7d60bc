"""Ensemble: one verdict of what several models, presets and samples say of the same event or incident.

votes      who found an event, who looked and did not, and how sure to be of it
rows       fields that several describe, made into one: by vote, by filling holes, by the most frequent value
cluster    one call that joins descriptions into what most of them say
described  what describers say together, by one of these rules
stage      options and the stage

The rules know no stream and no file, so that the command line applies the same ones to files.
"""
