"""What `streamproc ensemble` does with files where a model is asked. Read when it is needed, so that --help answers at once."""
