"""Checks before anything is built: wrong flags are refused, flags without effect are named in a warning.

``all_checks`` calls the others in order, for a training and for the commands that use a trained model.

=========================  =============================================================================
module                     what it checks
=========================  =============================================================================
``command``                which command runs, and what its flags ask for as a whole
``languages``              ``--langs``, ``--lang-pairs``, ``--source-lang``, ``--target-lang``
``language_tokens``        ``--encoder-langtok`` and its kin, against the training's
``training_numbers``       ranges of ``--lr``, ``--dropout`` and other numbers of fairseq's
``unsupported_flags``      fairseq's flags that would spoil adapters, or that this machine cannot serve
``best_metric``            ``--best-checkpoint-metric``
``model_overrides``        ``--model-overrides``
``pruning_choices``        whether the choices of pruning can be followed together
``pruning_length``         whether a training is long enough for its pruning
``untrained_languages``    languages whose adapters no direction trains
``unused_flags``           flags of ours that have no effect with the other flags given
``unused_with_checkpoint`` flags that have no effect because of what a checkpoint holds
=========================  =============================================================================
"""
