"""The only loop: leases, concurrency, order, parking, retries, dead letters, landing, drain.

    service    a stage at work in one process: leases as they come
    runner     one lease at work; ties the rooms below together
    intake     reading and what is dropped, passed over, or waited for; holes, what expired before it was read
    each, fold, follow   one way to work for each kind of stage; lanes, what a fold keeps waiting
    tail       what an owner before has said and no state knows of: a landing that was torn
    book       state in memory, always ahead of what landed; cover, its coverage; ends, what of it may be forgotten
    state      keys and what is packed under them
    landing    the book's pages, one transaction after the other
    attempts   failure classes, backoff, circuit; slots, calls in flight
    look       tables; waits, who waits for which key; pace, how far ahead a writer may be
    speech     records in the service's name; tracing, their spans for a collector

It sees stages by their kind only, and the bus by its contract only.
"""

from streamproc.runner.attempts import Backoff
from streamproc.runner.service import Service
from streamproc.runner.shared import Bounds

__all__ = ["Backoff", "Bounds", "Service"]
