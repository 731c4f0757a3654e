"""What does not belong to ProtoDUNE's own workflow: data that need no files, other networks, classes of your own.

A new machine is tried with them in seconds, without data::

    hpcreco train hello           the smallest run there is; every rank says where it is
    hpcreco train cnn             images of random classes, a small convolutional network
    hpcreco train random_sparse   random tracks among ghosts, the sparse network of ghost3d

**Classes of your own** stand in a config as ``module:Class``, with their arguments beside ``name``; the module must be
on the Python path (``export PYTHONPATH=$PWD``):

``data.name``
    a data set, see `data.DataSet`: how many events there are, and what event number k holds.
``model.name``
    a torch module. For voxels: (coords int32 (N, 4) batch, x, y, z; features (N, F)) -> (N, 1). For images: (images
    (N, C, H, W)) -> scores (N, classes).
``loss.name``
    a torch loss of (prediction, target) with a ``reduction`` argument, or a class whose objects are called with a
    `hpcreco.nn.losses.Prediction` and a target and return `hpcreco.train.task.Term`s by name.
``metrics.COLUMN``
    a function of (prediction, target) that gives (sum, weight); the column is sum / weight over all events and ranks.
``optimizer.name``
    a torch optimizer.
"""
