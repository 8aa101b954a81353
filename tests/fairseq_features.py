"""fairseq's features beside adapters: what works, and what is refused or warned of.

The manual shows this table (``docs/fairseq-features.md``), and tests go through it row by row. The module imports
nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass

WORKS, WARNED, REFUSED = "works", "warned of", "refused"


@dataclass(frozen=True)
class Feature:
    """A row of the table.

    Attributes:
        name: what the flags are for.
        flags: the flags as they are typed; ``{name}`` stands for a path that the test knows.
        state: whether it works, gets a warning that it does nothing, or is refused before anything expensive.
        says: what is checked besides the base and the masks; for the other states, words of the message.
        shown_by: the test, as ``file::function`` below ``tests/``, if it is not the one for all rows of the topic.
    """

    name: str
    flags: str
    state: str
    says: str
    shown_by: str = ""


def works(name: str, flags: str, says: str, shown_by: str = "") -> Feature:
    """A feature that works."""
    return Feature(name, flags, WORKS, says, shown_by)


def warned(name: str, flags: str, says: str, shown_by: str = "") -> Feature:
    """A feature that does nothing, which a warning says."""
    return Feature(name, flags, WARNED, says, shown_by)


def refused(name: str, flags: str, says: str, shown_by: str = "") -> Feature:
    """A feature that is refused in one sentence."""
    return Feature(name, flags, REFUSED, says, shown_by)


STAYS = "integration/test_stays_training.py::"
DECODES = "integration/test_stays_generation.py::"
SHARDED = f"{STAYS}test_shards_are_read_as_stock_fairseq_reads_them_and_pruned_on_schedule"
RECOMPUTED = (
    "unit/models/test_against_plain_loop.py::"
    "test_recomputed_activations_give_the_same_gradients_even_after_another_batch"
)
OTHERS = f"{DECODES}test_other_ways_to_decode_are_those_of_stock_fairseq_too"

DATA = (
    works("sampling in proportion", "--sampling-method concat", "every sentence is read once", SHARDED),
    works("sampling by temperature", "--sampling-method temperature", "reads what stock fairseq reads", SHARDED),
    works("uniform sampling", "--sampling-method uniform --virtual-data-size 60", "likewise", SHARDED),
    works("round robin", "--sampling-method RoundRobin", "every sentence is read once", SHARDED),
    works(
        "virtual epochs", "--virtual-epoch-size 50 --virtual-data-size 90", "reads what stock fairseq reads", SHARDED
    ),
    works("data in shards", "shard0:shard1", "shards may hold different directions", SHARDED),
    works(
        "weights of directions",
        "--sampling-weights {{'main:en-fr':1.0,'main:wo-nl':0.0}}",
        "a direction of weight 0 is not read, and its adapters stay",
    ),
    works("weights from a file", "--sampling-weights-from-file {weights}", "a direction of weight 0 is not read"),
    refused("weights for some directions", "--sampling-weights {{'main:en-fr':1}}", "has no weight for main:wo-nl"),
    refused(
        "weights for other directions",
        "--sampling-weights {{'main:en-fr':1,'main:wo-nl':1,'main:nl-wo':1}}",
        "names main:nl-wo, which the training does not have",
    ),
    refused("negative weights", "--sampling-weights {{'main:en-fr':1,'main:wo-nl':-1}}", "the weight -1; expected"),
    refused("weights of 0", "--sampling-weights {{'main:en-fr':0,'main:wo-nl':0}}", "every direction the weight 0"),
    refused(
        "weights that are no dictionary", "--sampling-weights 3", "expected a dictionary of directions and weights"
    ),
    refused("weights from no file", "--sampling-weights-from-file {nothing}", "cannot be read: No such file"),
    refused("weights from another file", "--sampling-weights-from-file {dict}", "is damaged"),
    refused(
        "weights twice",
        "--sampling-weights-from-file {weights} --sampling-weights {{'main:en-fr':1,'main:wo-nl':1}}",
        "give one of them",
    ),
    refused("no temperature", "--sampling-temperature 0", "--sampling-temperature 0.0: expected a number above 0"),
    refused("negative temperature", "--sampling-temperature -1", "expected a number above 0"),
    refused("virtual data of no size", "--virtual-data-size 0", "--virtual-data-size 0: expected"),
    refused("virtual epochs of no size", "--virtual-epoch-size 0", "--virtual-epoch-size 0: expected"),
    works(
        "sides shared by reverse directions",
        "--enable-reservsed-directions-shared-datasets",
        "with the same tokens on both sides; else refused",
        "integration/test_shared_directions.py::test_shared_data_hold_the_same_examples_with_the_same_languages",
    ),
    works(
        "more data",
        "--extra-data {{'mined':'{data}'}} --extra-lang-pairs {{'mined':'en-nl'}} "
        "--langtoks {{'main':('src','tgt'),'mined':('src','tgt')}}",
        "its directions are read and trained",
    ),
    works("language tokens in place of the ends", "--lang-tok-replacing-bos-eos", "sources end with their token"),
    works("language tokens of mBART", "--lang-tok-style mbart", "sources start with [en]"),
    works("the target's token before the source", "--encoder-langtok tgt", "sources start with it"),
    works("tokens by table", "--langtoks {{'main':(None,'tgt')}}", "sources start without a token"),
    works(
        "longest sentences skipped", "--max-source-positions 6 --skip-invalid-size-inputs-valid-test", "none is read"
    ),
    works("sentences cut", "--max-source-positions 6 --truncate-source --lang-tok-replacing-bos-eos", "none is lost"),
    warned(
        "sentences cut before a language token",
        "--max-source-positions 6 --truncate-source --disable-validation",
        "--truncate-source: cut sentences are left out of the training",
    ),
    warned("alignments", "--load-alignments", "--load-alignments: no effect, since no criterion for these models"),
    warned("primary data", "--upsample-primary 2", "--upsample-primary 2: no effect"),
    refused("a dictionary twice", "--source-dict {dict}", "and --fixed-dictionary {dict} were both given"),
)

BATCHES = (
    works(
        "validation and saving within epochs",
        "--validate-interval-updates 2",
        "as undisturbed, bit for bit",
        "integration/test_training.py::test_run_stopped_anywhere_and_resumed_ends_with_the_same_weights",
    ),
    works("workers", "--num-workers 2", "the same weights as without"),
    works("batches of sentences", "--batch-size 32", "no batch is larger"),
    works("batches of a multiple", "--required-batch-size-multiple 8", "batches but the last are multiples of 8"),
    works("targets without their first token", "--ignore-prefix-size 1", "the language token does not count"),
    works("the loss of a sentence", "--sentence-avg", "gradients are divided by sentences"),
    works("sorted first epochs", "--curriculum 1", "the first epoch is in fairseq's unshuffled order"),
    works("accuracy", "--report-accuracy", "accuracy is logged"),
    works("plain cross-entropy", "--criterion cross_entropy", "the loss is that of the targets"),
    works("several updates in one", "--update-freq 1,2", "half the updates from the second epoch on"),
    works("layer drop", "--encoder-layerdrop 0.5 --decoder-layerdrop 0.5", "layers are left out of updates"),
    warned("groups of batches", "--grouped-shuffling", "--grouped-shuffling: no effect"),
    warned("buffer", "--data-buffer-size 4", "--data-buffer-size 4: no effect without --sampling-method RoundRobin"),
    refused(
        "alignment loss", "--criterion label_smoothed_cross_entropy_with_alignment", "is for the architecture trans"
    ),
    refused("latency", "--criterion latency_augmented_label_smoothed_cross_entropy", "is for simultaneous translation"),
    refused("CTC", "--criterion label_smoothed_cross_entropy_with_ctc", "is for speech models"),
    refused("speech", "--criterion ctc", "is for speech recognition"),
    refused("loss without order", "--criterion nat_loss", "is for non-autoregressive models"),
    refused("masked words", "--criterion masked_lm", "is for masked language models"),
    refused("loss of the model", "--criterion model", "is for models that compute their own loss"),
    refused("adaptive loss alone", "--criterion adaptive_loss", "belong together"),
    refused("adaptive softmax alone", "--adaptive-softmax-cutoff 20,40", "belong together"),
    refused(
        "adaptive loss in torch's DDP",
        "--criterion adaptive_loss --adaptive-softmax-cutoff 20,40",
        "does not work with --ddp-backend pytorch_ddp; give --ddp-backend legacy_ddp",
    ),
)

CHECKPOINTS = (
    works(
        "patience",
        "--patience 2",
        "the run ends where the loss says",
        f"{STAYS}test_patience_ends_a_pruned_run_where_the_loss_says",
    ),
    works("saving within epochs", "--save-interval-updates 2 --keep-interval-updates 1", "the last one is kept"),
    works("last and best checkpoints", "--keep-last-epochs 1 --keep-best-checkpoints 1", "only these are kept"),
    works("every second epoch", "--save-interval 2", "the first epoch is not saved"),
    works("no checkpoint", "--no-save", "no file is written"),
    works("no last checkpoint", "--no-last-checkpoints --no-save-optimizer-state", "and no state of the optimizer"),
    works("another best metric", "--best-checkpoint-metric nll_loss", "its value is saved"),
    works("a time limit", "--stop-time-hours 0.0000001", "the run ends after one update and saves"),
    works("a limit of epochs", "--max-epoch 1", "the run ends after it"),
    works("a limit of updates", "--max-update 3", "the run ends after them"),
    works("a least learning rate", "--stop-min-lr 0.1", "nothing trains below it"),
    works("a suffix", "--checkpoint-suffix .x", "files are named so"),
    works(
        "averaging",
        "langspec-lora average",
        "the mean, pruned where all are",
        "unit/adapters/test_averaging.py::test_every_entry_is_the_mean_and_pruned_where_one_is",
    ),
    refused("averages of weights", "--store-ema", "--store-ema averages weights only"),
)

LOGS = (
    works("JSON", "--log-format json", "every line is JSON with the loss"),
    works("progress bar", "--log-format tqdm", "statistics of each epoch"),
    works("no log", "--log-format none", "no line of statistics"),
    works("log file", "--log-file {folder}/log --log-format simple", "it holds the statistics"),
    works("TensorBoard", "--tensorboard-logdir {folder}", "losses are recorded (with a stand-in for its writer)"),
    works("Weights & Biases", "--wandb-project p", "losses are recorded (with a stand-in for the package)"),
    works("Aim", "--aim-repo {folder}", "losses are recorded (with a stand-in for the package)"),
    warned("TensorBoard that is not installed", "--tensorboard-logdir {folder}", "tensorboardX is not installed"),
    warned("Weights & Biases that is not installed", "--wandb-project p", "since wandb is not installed; pip install"),
    warned("Aim that is not installed", "--aim-repo {folder}", "since aim is not installed; pip install aim"),
)

MODELS = (
    works("unshared embeddings", "", "three matrices"),
    works("shared decoder embeddings", "--share-decoder-input-output-embed", "two matrices"),
    works("different dictionaries", "--source-dict {dict} --target-dict {longer}", "of different sizes"),
    works("normalised embeddings", "--layernorm-embedding", ""),
    works("learned positions", "--encoder-learned-pos --decoder-learned-pos", ""),
    works("no positions", "--no-token-positional-embeddings", ""),
    works("no scale", "--no-scale-embedding", ""),
    works("no last norm", "--no-decoder-final-norm", ""),
    works("narrow output", "--decoder-output-dim 8", "unshared"),
    works("GELU", "--activation-fn gelu", ""),
    works("tanh", "--activation-fn tanh", ""),
    works("self-attention to source and target", "--cross-self-attention", "beside cross-attention"),
    works(
        "self-attention in place of cross-attention",
        "--cross-self-attention --no-cross-attention --decoder-lora-position q_k_v_fc1_fc2",
        "its keys are of both",
    ),
    warned(
        "a decoder that reads no source",
        "--no-cross-attention --decoder-lora-position q_k_v_fc1_fc2",
        "--no-cross-attention without --cross-self-attention",
    ),
    works("recomputed activations", "--checkpoint-activations", "", RECOMPUTED),
    works("offloaded activations", "--offload-activations", "", RECOMPUTED),
    works(
        "adaptive softmax",
        "--adaptive-softmax-cutoff 20,40 --criterion adaptive_loss --ddp-backend legacy_ddp",
        "log-probabilities",
    ),
    warned("adaptive input", "--adaptive-input", "--adaptive-input: no effect"),
    warned("characters", "--char-inputs", "--char-inputs: no effect"),
    refused(
        "tied adaptive softmax",
        "--adaptive-softmax-cutoff 20,40 --criterion adaptive_loss --ddp-backend legacy_ddp --tie-adaptive-weights",
        "need adaptive input embeddings",
    ),
    refused("no cross-attention, adapted", "--no-cross-attention", "leaves no crossq, crossk, crossv to adapt"),
    refused("fewer encoder layers", "--encoder-layers-to-keep 0", "--encoder-layers-to-keep removes layers that have"),
    refused("fewer decoder layers", "--decoder-layers-to-keep 0", "--decoder-layers-to-keep removes layers that have"),
    refused(
        "one matrix for different dictionaries",
        "--share-all-embeddings --source-dict {dict} --target-dict {longer}",
        "--share-all-embeddings needs one dictionary",
    ),
    refused("quantisation noise", "--quant-noise-pq 0.1", "permanently sets weights of the base to zero"),
    refused("quantised layers", "--quantization-config-path {dict}", "replaces layers by quantised ones"),
    refused("expert layers", "--base-layers 1", "adds expert layers to the base"),
)

OPTIMIZERS = (
    works("Adam", "--optimizer adam", ""),
    works("Adam of earlier versions", "--optimizer adam --use-old-adam --weight-decay 0.01", ""),
    works("Adadelta", "--optimizer adadelta --lr 1", ""),
    works("Adagrad", "--optimizer adagrad --weight-decay 0.01", ""),
    works("Adamax", "--optimizer adamax", ""),
    works("Adafactor", "--optimizer adafactor --beta1 0.9 --weight-decay 0.01", ""),
    works("Nesterov's gradient", "--optimizer nag --momentum 0.9 --weight-decay 0.01", ""),
    works("SGD", "--optimizer sgd --momentum 0.9 --weight-decay 0.01", ""),
    refused("LAMB without apex", "--optimizer lamb", "--optimizer lamb cannot be used: Please install apex"),
    refused("CPU Adam without DeepSpeed", "--optimizer cpu_adam", "cannot be used: Please install DeepSpeed"),
    refused("several optimizers", "--optimizer composite", "needs a model that divides its parameters into groups"),
    refused("half-precision state", "--optimizer adam --fp16-adam-stats", "is only supported with FusedAdamV1"),
    refused(
        "Adafactor with two rates", "--optimizer adafactor --relative-step", "Cannot combine manual lr and relative"
    ),
)

SCHEDULES = (
    works("fixed", "--lr-scheduler fixed --warmup-updates 3", ""),
    works("fixed, annealed", "--lr-scheduler fixed --force-anneal 1 --lr-shrink 0.5", ""),
    works("cosine", "--lr-scheduler cosine --warmup-updates 2 --max-update 9", ""),
    works("inverse square root", "--lr-scheduler inverse_sqrt --warmup-updates 2", ""),
    works("by hand", "--lr-scheduler manual --update2lr {{'1':0.002,'4':0.001}}", ""),
    works("polynomial decay", "--lr-scheduler polynomial_decay --total-num-update 9 --power 2", ""),
    works("on plateau", "--lr-scheduler reduce_lr_on_plateau --lr-shrink 0.5 --lr-threshold 0.9", ""),
    works("step", "--lr-scheduler step --lr-deacy-period 2 --lr-decay 0.5", ""),
    works("three stages", "--lr-scheduler tri_stage --phase-ratio (0.2,0.3,0.5) --max-update 9", ""),
    works("triangular", "--lr-scheduler triangular --max-lr 0.01 --lr-period-updates 4", ""),
    refused("the optimizer's own", "--lr-scheduler pass_through", "--lr-scheduler pass_through cannot be used: Pass-"),
    refused("cosine without an end", "--lr-scheduler cosine", "--max_update or --lr-period-updates must be set"),
    refused("three stages of no length", "--lr-scheduler tri_stage", "please specify steps or phase_ratio"),
    refused("triangle upside down", "--lr-scheduler triangular --max-lr 0.0001", "max_lr must be more than lr"),
    refused(
        "numbers for names", "--lr-scheduler manual --epoch2lr {{1:0.001}}", "--lr-scheduler manual cannot be used"
    ),
)

SEARCHES = (
    works("sampling", "--sampling --sampling-topk 3 --nbest 5", "as stock fairseq with merged weights", OTHERS),
    works("nucleus sampling", "--sampling --sampling-topp 0.7 --nbest 5", ""),
    works("groups of beams", "--diverse-beam-groups 5", "likewise", OTHERS),
    works("siblings", "--diversity-rate 0.9", ""),
    works("prefix", "--prefix-size 2", "likewise", OTHERS),
    works("length penalty", "--lenpen 3", ""),
    works("penalty of unknown words", "--unkpen -50", "unknown words appear"),
    works("no normalisation", "--unnormalized", ""),
    works("temperature", "--temperature 3", ""),
    works("least length", "--min-len 7", ""),
    works(
        "alignments",
        "--print-alignment",
        "likewise",
        f"{DECODES}test_alignments_are_those_of_stock_fairseq_on_the_merged_export",
    ),
    works("reference scored", "--score-reference", "likewise", OTHERS),
    works("n best", "--nbest 3", "likewise", OTHERS),
    works("length of the source", "--match-source-len", "likewise", OTHERS),
    works(
        "language model",
        "--lm-path {lm}",
        "likewise",
        f"{DECODES}test_a_language_model_beside_us_chooses_as_beside_the_merged_export",
    ),
    works(
        "ensembles",
        "--path a.pt:b.pt",
        "likewise",
        f"{DECODES}test_an_ensemble_translates_as_the_ensemble_of_the_merged_exports",
    ),
    works(
        "nothing twice", "--no-repeat-ngram-size 2", "no two words repeat; stock fairseq only with its CUDA extension"
    ),
    works("no word twice", "--no-repeat-ngram-size 1", "no word repeats"),
    works("dropout", "--retain-dropout --model-overrides {{'dropout':0.4}}", "hypotheses differ"),
    works("language tokens kept", "--keep-inference-langtok", "hypotheses start with them; stock fairseq drops them"),
    works("dropped layers in training only", "--model-overrides {{'encoder_layerdrop':0.9}}", "the same hypotheses"),
    refused("unknown words replaced", "--replace-unk x", "--replace-unk: fairseq cannot read the alignments"),
    refused("forced words", "--constraints", "--constraints: fairseq's multilingual task cannot force words"),
    refused("steps", "--print-step", "--print-step: only iterative refinement has steps"),
    refused("fewer layers", "--model-overrides {{'encoder_layers_to_keep':'0'}}", "removes layers that have adapters"),
    refused("fewer decoder layers", "--model-overrides {{'decoder_layers_to_keep':'0'}}", "removes layers that have"),
    warned("iterations", "--iter-decode-max-iter 3 --iter-decode-with-beam 2", "only iterative refinement reads it"),
    warned("shards", "--num-shards 2 --shard-id 1", "--num-shards 2: no effect"),
    warned("more than all", "--nbest 9", "--nbest 9: a search with --beam 5 finds at most 5 hypotheses"),
    warned("dropout of parts", "--retain-dropout-modules TransformerDecoder", "no effect without --retain-dropout"),
)

COMMANDS = (
    works(
        "Hydra",
        "fairseq-hydra-train",
        "the same bits as fairseq-train",
        "integration/test_hydra.py::test_hydra_trains_the_same_bits_as_flags",
    ),
    works(
        "another architecture",
        "--arch transformer",
        "stock models train, without adapters",
        "unit/tasks/test_task.py::test_a_model_without_adapters_trains_as_in_fairseq",
    ),
    works(
        "validation of a checkpoint",
        "fairseq-validate",
        "",
        "integration/test_token_order.py::test_validation_reads_the_order_from_the_checkpoint",
    ),
    works(
        "translation line by line",
        "fairseq-interactive",
        "as fairseq-generate",
        "integration/test_training.py::test_stock_interactive_translates_as_generate_does",
    ),
    refused(
        "scores of a language model",
        "fairseq-eval-lm",
        "translate",
        "integration/test_fairseq_generation.py::test_scores_of_a_language_model_are_refused_before_a_model_is_loaded",
    ),
)

TOPICS = {
    "Data and sampling": DATA,
    "Batches and losses": BATCHES,
    "Checkpoints and limits": CHECKPOINTS,
    "Logs": LOGS,
    "Models": MODELS,
    "Optimizers": OPTIMIZERS,
    "Schedules of the learning rate": SCHEDULES,
    "Search": SEARCHES,
    "Commands": COMMANDS,
}
