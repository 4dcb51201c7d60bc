"""Describe: what happened in an incident or an event, told from pictures around it.

presets  which pictures: so many before, so many after, so many frames apart
rounds   what is asked of them, one question after the other, each by several samples; and what they say together
stage    options and the stage; where pictures come from, is a protocol here and `video`'s business
"""
