"""The job queue: an SQLite file in the studio folder is the queue and the state, and a worker runs the jobs.

    with Queue(studio_folder()) as queue:
        scan = queue.add(Work("scan", {"video": "me.mp4"}, "me.scan", {"consent": "Ada Example"}))
        queue.add(Work("personalize", {"scan": "me.scan"}, "me.avatar"))    # waits for the scan by itself
        queue.changes(0)                                                    # what a page follows

``Queue`` can be used from several threads and processes. Importing this package loads neither torch nor numpy.
"""

from mystudio.jobs.kinds import KINDS as KINDS
from mystudio.jobs.launch import start_worker as start_worker
from mystudio.jobs.place import studio_folder as studio_folder
from mystudio.jobs.queue import Queue as Queue
from mystudio.jobs.types import ENDED as ENDED
from mystudio.jobs.types import Changes as Changes
from mystudio.jobs.types import Job as Job
from mystudio.jobs.types import Log as Log
from mystudio.jobs.types import State as State
from mystudio.jobs.types import Work as Work
from mystudio.jobs.types import Worker as Worker
