"""From members to files: config, standalone source, weights, manifest; every file is read back and compared."""

from scalesearch.emit.load import load as load
from scalesearch.emit.place import refuse_occupied as refuse_occupied
from scalesearch.emit.place import refuse_other as refuse_other
from scalesearch.emit.start import Start as Start
from scalesearch.emit.write import write as write
