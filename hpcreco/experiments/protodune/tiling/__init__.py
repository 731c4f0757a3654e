"""From channel waveforms to candidate voxels: the three-plane coincidence of every time slice.

`tiler` is the entrance; `layout` holds what the geometry fixes, `kernels` the compiled passes, `arrays` the
same in plain numpy.
"""
