"""A good base file, and what makes bad ones of it, each with what is told."""

GOOD = """\
name: mine
network:
  stem: {width: 16}
  stages:
  - {block: mbconv, depth: 1, width: 16}
  - {block: mbconv, depth: 2, width: 24, stride: 2, expansion: 4, se_ratio: 0.25}
  - {block: bottleneck, depth: 2, width: 48, expansion: 0.5, groups: 4}
  head: {width: 160}
  resolution: 32
  num_classes: 10
rounding: {divisor: 4}
"""
STEM, FIRST, GROUPED = "stem: {width: 16}", "block: mbconv, depth: 1, width: 16", "expansion: 0.5, groups: 4"
SECOND = "stride: 2, expansion: 4, se_ratio: 0.25"
STAGES = GOOD[GOOD.index("  stages:") : GOOD.index("  head:")]
ROW = "  - {block: basic, depth: 4096, width: 8}\n"

FIELDS = [
    # numbers
    ("stem: {width: 16}", "stem: {width: 0}", "network.stem.width = 0"),
    (STEM, "stem: {width: -3}", "network.stem.width = -3"),
    (STEM, "stem: {width: 65537}", "network.stem.width = 65537; it must be a whole number from 1 to 65,536"),
    (STEM, 'stem: {width: "32"}', "network.stem.width = '32'"),
    (STEM, "stem: {width: null}", "network.stem.width = None"),
    (STEM, "stem: {width: }", "network.stem.width = None"),
    (STEM, "stem: {width: [16]}", "network.stem.width = [16]"),
    (STEM, "stem: {width: 1_6}", "network.stem.width = '1_6'"),
    (STEM, "stem: {width: 016}", "network.stem.width = '016'"),
    (STEM, "stem: {width: 1:20}", "network.stem.width = '1:20'"),
    (STEM, "stem: {width: 16, kernel: 4}", "network.stem.kernel = 4; it must be a whole number, odd"),
    (STEM, "stem: {width: 16, kernel: 65}", "network.stem.kernel = 65"),
    (STEM, "stem: {width: 16, stride: 0}", "network.stem.stride = 0"),
    (STEM, "stem: {width: 16, pool: true}", "network.stem.pool = True"),
    (STEM, f"stem: {{width: {'9' * 900}}}", "network.stem.width = a whole number of 2,990 bits"),
    ("resolution: 32", "resolution: 16385", "network.resolution = 16385"),
    ("resolution: 32", "resolution: 224.5", "network.resolution = 224.5"),
    ("resolution: 32", "resolution: yes", "network.resolution = 'yes'"),
    ("num_classes: 10", "num_classes: -1", "network.num_classes = -1"),
    ("num_classes: 10", "num_classes: .inf", "network.num_classes = inf"),
    ("num_classes: 10", "num_classes: 10\n  norm_eps: 1", "network.norm_eps = 1"),
    ("num_classes: 10", "num_classes: 10\n  norm_eps: -1e-3", "network.norm_eps = -0.001"),
    ("num_classes: 10", "num_classes: 10\n  norm_momentum: 2024-13-45", "network.norm_momentum = '2024-13-45'"),
    ("num_classes: 10", "num_classes: 10\n  drop_path: 1e400", "network.drop_path = inf"),
    ("num_classes: 10", "num_classes: 10\n  hidden_divisor: 0", "network.hidden_divisor = 0"),
    ("depth: 1,", "depth: 2.5,", "network.stages[0].depth = 2.5"),
    ("depth: 1,", "depth: true,", "network.stages[0].depth = True"),
    ("depth: 1,", "depth: 4097,", "network.stages[0].depth = 4097"),
    (FIRST, f"{FIRST}, expansion: 0", "network.stages[0].expansion = 0"),
    (SECOND, "stride: 2, expansion: -.inf", "network.stages[1].expansion = -inf"),
    (SECOND, "stride: 2, se_ratio: 1", "network.stages[1].se_ratio = 1"),
    ("divisor: 4", "divisor: 0", "rounding.divisor = 0"),
    ("divisor: 4", "floor: 1.5", "rounding.floor = 1.5"),
    # texts and choices
    ("block: mbconv, depth: 1", "block: MBConv, depth: 1", "network.stages[0].block = 'MBConv'; it must be one of mbc"),
    ("block: mbconv, depth: 1", "block: 7, depth: 1", "network.stages[0].block = 7"),
    (FIRST, f"{FIRST}, activation: gelu", "network.stages[0].activation = 'gelu'"),
    ("num_classes: 10", "num_classes: 10\n  activation: null", "network.activation = None"),
    ("num_classes: 10", "num_classes: 10\n  padding: valid", "network.padding = 'valid'"),
    ("num_classes: 10", "num_classes: 10\n  squeeze_excite: {gate: tanh}", "network.squeeze_excite.gate = 'tanh'"),
    ("divisor: 4", "stem: thin", "rounding.stem = 'thin'; it must be one of scaled, fixed"),
    ("name: mine", "name: ../x", "name = '../x'; it must be a text for folder names"),
    ("name: mine", "name: /tmp/x", "name = '/tmp/x'"),
    ("name: mine", "name: ..", "name = '..'"),
    ("name: mine", "name: -rf", "name = '-rf'"),
    ("name: mine", 'name: ""', "name = ''"),
    ("name: mine", "name: my net", "name = 'my net'"),
    ("name: mine", f"name: {'n' * 65}", "name = 'nnn"),
    ("name: mine", f"name: {'n' * 500_000}", "name = 'nnn"),
    ("name: mine", "name: 12", "name = 12"),
    ("name: mine", "name: {of: me}", "name = {'of': 'me'}"),
    # shapes
    ("rounding: {divisor: 4}", "rounding: null", "rounding = None; it must be a mapping"),
    ("rounding: {divisor: 4}", "rounding: level", "rounding = 'level'; it must be a mapping"),
    (STEM, "stem: 16", "network.stem = 16; it must be a mapping"),
    (STEM, "stem: null", "network.stem = None; it must be a mapping"),
    (
        STAGES,
        "  stages: {first: {block: basic}}\n",
        "network.stages = {'first': {'block': 'basic'}}; it must be a list",
    ),
    (STAGES, "  stages: []\n", "network.stages is empty; it must be a list of at least one stage"),
    (STAGES, "  stages: null\n", "network.stages = None; it must be a list"),
    (STAGES, "  stages: mbconv\n", "network.stages = 'mbconv'; it must be a list"),
    (STAGES, "  stages: [mbconv]\n", "network.stages[0] = 'mbconv'; it must be a mapping"),
    (STAGES, STAGES + "  -\n", "network.stages[3] = None; it must be a mapping"),
    (STAGES, STAGES + "  - []\n", "network.stages[3] = []; it must be a mapping"),
    (
        STAGES,
        "  stages:\n" + 257 * ROW.replace("4096", "1"),
        "network.stages has 257 entries; it must be a list of at mo",
    ),
    # keys
    (STEM + "\n", "\n", "network.stem is missing"),
    (STAGES, "", "network.stages is missing; it must be a list"),
    ("  resolution: 32\n", "", "network.resolution is missing; it must be a whole number from 1 to 16,384"),
    ("block: mbconv, depth: 1", "depth: 1", "network.stages[0].block is missing; it must be one of mbconv"),
    (STEM, "stem: {widht: 16}", "network.stem.widht is not a key (did you mean width?)"),
    (FIRST, f"{FIRST}, repeats: 2", "network.stages[0].repeats is not a key; it must be one of block, depth"),
    ("name: mine", "nmae: mine", "nmae is not a key (did you mean name?); it must be one of network, name, rounding"),
    ("name: mine", "colour: red", "colour is not a key"),
    ("name: mine", '"a\\nb": 1', r"a\nb is not a key"),
    ("name: mine", "schema: 2", "schema = 2; it must be 1, which this version reads"),
    ("name: mine", "schema: true", "schema = True"),
    ("name: mine", 'schema: "1"', "schema = '1'"),
    ("network:\n", "network:\n  schema: 7\n", "network.schema = 7"),
    ("network:\n", "network:\n  network: {}\n", "network.network is not a key"),
    ("rounding:", "stages: []\nrounding:", "stages stands outside `network`; it must be a key under `network:`"),
    (GOOD, GOOD.replace("\n  ", "\n").replace("network:\n", ""), "stem stands outside `network`"),
    (GOOD, "name: mine\n", "network is missing"),
    (GOOD, "network: b0\n", "network = 'b0'; it must be a mapping"),
    (GOOD, "network: null\n", "network = None; it must be a mapping"),
    (GOOD, "network: []\n", "network = []; it must be a mapping"),
    (GOOD, "{}\n", "network is missing"),
]
"""What in `GOOD` is replaced by what, and what is told: all that a JSON Schema can refuse as well."""

BEYOND = [
    ("name: mine", 'name: "mine\\n"', r"name = 'mine\n'"),
    (STEM, "stem: {width: 16.0}", "network.stem.width = 16.0; it must be a whole number"),
    ("num_classes: 10", "num_classes: 1e1", "network.num_classes = 10.0"),
    ("num_classes: 10", "num_classes: 10\n  norm_eps: .nan", "network.norm_eps = nan"),
    (FIRST, f"{FIRST}, expansion: .NaN", "network.stages[0].expansion = nan"),
    ("groups: 4", "groups: 5", "network.stages[2].groups = 5; it must be a divisor of width x expansion = 24 channels"),
    (FIRST, f"{FIRST}, groups: 2", "network.stages[0].groups = 2; it must be 1 unless block is bottleneck"),
    (GROUPED, "se_ratio: 0.25", "network.stages[2].se_ratio = 0.25; it must be 0 unless block is mbconv"),
    (STAGES, "  stages:\n" + 2 * ROW, "network.stages = 8,192 blocks together; it must be at most 4,096"),
    (STAGES, "  stages:\n" + 256 * ROW, "network.stages = 1,048,576 blocks together"),
]
"""The same, for what only the values together or their exact type tell."""


def laughs(levels: int = 12) -> str:
    """Lists of nine aliases each to the list above: a billion values in a few lines."""
    rows = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(["a0: &a0 [1]", *rows, f"network: *a{levels - 1}"])


TEXTS: list[tuple[str | bytes, str]] = [
    ("", "empty"),
    ("\n\n   \n", "empty"),
    ("# nothing but a remark\n", "empty"),
    ("---\n", "not a mapping"),
    ("null\n", "not a mapping"),
    ("just a text\n", "not a mapping"),
    ("- network: {}\n", "not a mapping"),
    ("[1, 2]\n", "not a mapping"),
    (b"\xff\xfen\x00a\x00m\x00e\x00", "line 1 is not UTF-8"),
    (GOOD.encode("utf-16-be"), "line 1, column 1: character 0x0000"),
    ("name: mine\n# größer\n".encode("latin-1"), "line 2 is not UTF-8"),
    (b"name: mi\x00ne\n", "line 1, column 9: character 0x0000"),
    (b"name: mine\nnetwork: \x1b[0m\n", "line 2, column 10: character 0x001b"),
    (bytes(range(256)) * 40, "is not UTF-8"),
    (GOOD.replace("  stem", "\tstem"), "line 3, column 1: a tab"),
    (GOOD.replace("name: mine", "name: mine: yours"), "line 1, column 11: a colon"),
    (GOOD.replace("resolution: 32", "resolution 32"), "line 10, column 3: a key has no colon"),
    (GOOD.replace("  head", "   head"), "line 8, column 4: the indentation"),
    (GOOD.replace("  head", " head"), "line 8, column 2: the indentation"),
    (GOOD.replace("stem: {width: 16}", "stem: {width: 16"), "a comma or a closing } is missing"),
    (GOOD.replace("name: mine", 'name: "mine'), "line 1, column 7: a quote is not closed"),
    (GOOD.replace("name: mine", "name: @mine"), "line 1, column 7: a text begins with @"),
    (GOOD.replace("name: mine", "name: - mine"), "line 1, column 7: a dash"),
    (GOOD.replace("name: mine", "name: *"), "line 1, column 8: a * or &"),
    (GOOD.replace("name: mine", 'name: "\\q"'), "line 1, column 9: a backslash"),
    (GOOD.replace("name: mine", "%YAML 9.9"), "line 1, column 1: "),
    (GOOD + "name: yours\n", "line 12, column 1: the key 'name' stands here a second time"),
    (GOOD.replace("depth: 1,", "depth: 1, depth: 3,"), "line 5, column 31: the key 'depth'"),
    (GOOD + "5: five\n", "line 12, column 1: the key 5 is not a text"),
    (GOOD + "true: 1\n", "the key true is not a text"),
    (GOOD + "? \n: 1\n", "line 12, column 2: the key before the colon is not a text"),
    (GOOD + "[a, b]: 1\n", "the key in brackets is not a text"),
    (GOOD + "? {a: b}\n: 1\n", "the key in brackets is not a text"),
    (GOOD + "---\nname: yours\n", "line 12, column 1: a second document"),
    (
        GOOD.replace("mine", "!!python/object/apply:os.system [ls]"),
        "line 1, column 7: a tag, '!!python/object/apply:os.system'",
    ),
    (GOOD.replace("mine", "!!python/name:os.system"), "line 1, column 7: a tag"),
    (GOOD.replace("mine", "!!timestamp 2024-13-45"), "line 1, column 7: a tag"),
    (GOOD.replace("mine", "!!binary bWluZQ=="), "line 1, column 7: a tag"),
    (GOOD.replace("mine", "!!int mine"), "line 1, column 7: a tag"),
    (GOOD.replace("mine", "!!bool mine"), "line 1, column 7: a tag"),
    (GOOD.replace("mine", "!own mine"), "line 1, column 7: a tag"),
    (GOOD.replace("mine", "*nobody"), "line 1, column 7: *nobody stands for nothing"),
    ("network: &n\n  stem: *n\n", "line 2, column 9: *n stands for nothing above it, or for itself"),
    ("network:\n  stages: &s [*s]\n", "line 2, column 15: *s"),
    ("&top\nnetwork: *top\n", "line 2, column 10: *top"),
    ("network: &n {<<: *n}\n", "line 1, column 18: *n"),
    ("network: {<<: 3}\n", "line 1, column 11: << takes over what is not a mapping"),
    (laughs(), "line 6, column 10: more than 20,000 values"),
    (laughs().replace("[", "{k0: ").replace("]", "}").replace(", ", ", ? ").replace("? *", "x: *"), "the key 'x'"),
    ("a: &a {k: 1}\nb: &b {<<: [" + "*a, " * 9000 + "]}\nc: {<<: [" + "*b, " * 9000 + "]}\n", "more than 20,000"),
    ("network: " + "[" * 100_000, "line 1, column 74: lists and mappings are more than 64 deep"),
    ("network: " + "{a: " * 100_000, "lists and mappings are more than 64 deep"),
    ("network:\n" + "".join(" " * n + "a:\n" for n in range(1, 1200)), "more than 64 deep"),
    ("network:\n" + "- " * 400_000, "more than 64 deep"),
    ("network: [" + "1," * 500_000 + "]", "more than 20,000 values"),
    (GOOD.replace("width: 160", f"width: {'1' * 5000}"), "line 8, column 17: a number of 5,000 characters"),
    (GOOD.replace("width: 160", f"width: {'1' * 900_000}"), "a number of 900,000 characters"),
    (GOOD + "#" * (1 << 20), "more than 1,048,576 bytes"),
    (b"\x00" * (1 << 20), "line 1, column 1: character 0x0000"),
    ("name: '" + "\n\n" * 250_000 + "'\n", "name = "),
    ("name: |\n" + " x\n" * 150_000 + "network: {}\n", "name = "),
    ("x: " * 300_000, "line 1, column 5: a colon"),
    ("\n".join(f"key{n}: 1" for n in range(9_000)), "key0 is not a key"),
    ("network:\n" + "\n".join(f"  widht{n}: 1" for n in range(9_000)), "network.widht0 is not a key"),
]
"""Whole files that are no base file, and what is told."""
