// The tool's own arithmetic for the page: scaling.py, depths.py, cost.py and levelling.py, rule by rule.
// Networks are the plain values that config.yaml holds. Tests hold them to `scalesearch scale --json`, for a base of every kind of block.
const Scaling = (() => {
  "use strict";

  // ---- numbers as Python has them

  const gcd = (a, b) => (b ? gcd(b, a % b) : a);
  const ceilDiv = (a, b) => Math.floor((a + b - 1) / b);
  const decimals = (value, digits) => Number(value.toFixed(digits));

  /** The nearest whole number, halves to the even one. */
  const whole = (value) => {
    const low = Math.floor(value);
    return value - low === 0.5 ? low + (low % 2) : Math.round(value);
  };

  // ---- scaling.py

  const roundWidth = (width, rounding) => {
    const step = rounding.divisor;
    const rounded = Math.max(step, Math.floor(Math.trunc(width + step / 2) / step) * step);
    return rounded < rounding.floor * width ? rounded + step : rounded;
  };

  const stageStep = (stage, divisor) => {
    let unit = 1;
    let inside = 1;
    if (stage.block === "bottleneck") {
      const ratio = whole(1 / stage.expansion);
      if (Math.abs(ratio * stage.expansion - 1) < 1e-9 && stage.width % (ratio * stage.groups) === 0) {
        unit = ratio * stage.groups;
        inside = stage.groups;
      } else if (stage.groups > 1) {
        const hidden = Math.floor(whole(stage.width * stage.expansion) / stage.groups);
        unit = inside = stage.width / gcd(stage.width, hidden);
      }
    }
    return unit * gcd(Math.floor(stage.width / unit), divisor / gcd(divisor, inside));
  };

  const scaledWidth = (width, factor, rounding, stage) => {
    if (width === 0 || factor === 1) return width;
    const divisor = stage ? stageStep(stage, rounding.divisor) : gcd(width, rounding.divisor);
    return roundWidth(width * factor, { ...rounding, divisor });
  };

  const scaleWidths = (network, factor, rounding) => {
    const ahead = { scaled: factor, widened: Math.max(1, factor), fixed: 1 }[rounding.head];
    return {
      stem: scaledWidth(network.stem.width, rounding.stem === "scaled" ? factor : 1, rounding),
      stages: network.stages.map((stage) => scaledWidth(stage.width, factor, rounding, stage)),
      head: scaledWidth(network.head.width, ahead, rounding),
      hidden: scaledWidth(network.head.hidden, ahead, rounding),
    };
  };

  const resize = (network, depths, widths, resolution) => ({
    ...network,
    stem: { ...network.stem, width: widths.stem },
    stages: network.stages.map((stage, i) => ({ ...stage, depth: depths[i], width: widths.stages[i] })),
    head: { ...network.head, width: widths.head, hidden: widths.hidden },
    resolution,
  });

  const deepens = (network, rounding) =>
    network.stages.map((_, i) => rounding.fixed_depths === "none" || (i > 0 && i < network.stages.length - 1));

  /** The paper's rounding: depth up to the next whole, channels to the divisor, the side to the pixel. */
  const scale = (network, at, rounding) => {
    const moves = deepens(network, rounding);
    const depths = network.stages.map(({ depth }, i) => (moves[i] ? Math.ceil(decimals(depth * at.depth, 9)) : depth));
    const side = Math.max(1, whole(network.resolution * at.resolution));
    return resize(network, depths, scaleWidths(network, at.width, rounding), side);
  };

  // ---- cost.py

  const POOLED = 0;
  const pixels = (resolution, stride) => (stride === POOLED ? 1 : ceilDiv(resolution, stride) ** 2);

  const conv = (stride, inputs, outputs, kernel = 1, groups = 1) => {
    const weights = Math.floor(inputs / groups) * kernel * kernel * outputs;
    return { stride, work: weights, params: weights + 2 * outputs, activations: outputs };
  };

  const linear = (inputs, outputs) => {
    const weights = inputs * outputs;
    return { stride: POOLED, work: weights, params: weights + outputs, activations: outputs };
  };

  const hiddenWidth = (network, stage, inputs) => {
    if (stage.block === "bottleneck") return Math.max(1, whole(stage.expansion * stage.width));
    const hidden = stage.expansion * inputs;
    if (network.hidden_divisor === 1 || stage.expansion === 1) return Math.max(1, whole(hidden));
    return roundWidth(hidden, { divisor: network.hidden_divisor, floor: 0.9 });
  };

  const squeezedWidth = (network, stage, inputs) => {
    if (!stage.se_ratio) return 0;
    const how = network.squeeze_excite;
    const squeezed = stage.se_ratio * (how.of === "input" ? inputs : hiddenWidth(network, stage, inputs));
    if (how.divisor === 1) return Math.max(1, Math.trunc(squeezed));
    return roundWidth(squeezed, { divisor: how.divisor, floor: 0.9 });
  };

  const shortcut = (stage, inputs, before, after) =>
    before !== after || inputs !== stage.width ? [conv(after, inputs, stage.width)] : [];

  const BLOCKS = {
    mbconv(network, stage, inputs, before, after) {
      const hidden = hiddenWidth(network, stage, inputs);
      const squeezed = squeezedWidth(network, stage, inputs);
      return [
        ...(hidden !== inputs ? [conv(before, inputs, hidden)] : []),
        conv(after, hidden, hidden, stage.kernel, hidden),
        ...(squeezed ? [linear(hidden, squeezed), linear(squeezed, hidden)] : []),
        conv(after, hidden, stage.width),
      ];
    },
    separable: (network, stage, inputs, before, after) => [
      conv(after, inputs, inputs, stage.kernel, inputs),
      conv(after, inputs, stage.width),
    ],
    basic: (network, stage, inputs, before, after) => [
      conv(after, inputs, stage.width, stage.kernel),
      conv(after, stage.width, stage.width, stage.kernel),
      ...shortcut(stage, inputs, before, after),
    ],
    bottleneck(network, stage, inputs, before, after) {
      const hidden = hiddenWidth(network, stage, inputs);
      return [
        conv(before, inputs, hidden),
        conv(after, hidden, hidden, stage.kernel, stage.groups),
        conv(after, hidden, stage.width),
        ...shortcut(stage, inputs, before, after),
      ];
    },
  };

  /** Stem, first and repeated blocks of every stage, and head, each with its layers. */
  const parts = (network) => {
    const found = [];
    let inputs = network.stem.width;
    let stride = network.stem.stride * network.stem.pool;
    found.push({ place: "stem", times: 1, layers: [conv(network.stem.stride, 3, inputs, network.stem.kernel)] });
    network.stages.forEach((stage, place) => {
      const after = stride * stage.stride;
      found.push({ place, times: 1, layers: BLOCKS[stage.block](network, stage, inputs, stride, after) });
      [stride, inputs] = [after, stage.width];
      const layers = BLOCKS[stage.block](network, stage, inputs, stride, stride);
      if (stage.depth > 1) found.push({ place, times: stage.depth - 1, repeats: true, layers });
    });
    const pooled = network.head.width || inputs;
    found.push({
      place: "head",
      times: 1,
      layers: [
        ...(network.head.width ? [conv(stride, inputs, network.head.width)] : []),
        ...(network.head.hidden ? [linear(pooled, network.head.hidden)] : []),
        linear(network.head.hidden || pooled, network.num_classes),
      ],
    });
    return found;
  };

  const total = (pieces, resolution) => {
    const sum = { macs: 0, params: 0, activations: 0 };
    for (const { times, layers } of pieces) {
      for (const layer of layers) {
        const area = times * pixels(resolution, layer.stride);
        sum.macs += layer.work * area;
        sum.params += layer.params * times;
        sum.activations += layer.activations * area;
      }
    }
    return sum;
  };

  const count = (network) => total(parts(network), network.resolution);

  /** The cost of stem, each stage and head, in the order of the data. */
  const countParts = (network) => {
    const places = ["stem", ...network.stages.keys(), "head"];
    const pieces = parts(network);
    return places.map((place) => total(pieces.filter((one) => one.place === place), network.resolution));
  };

  // ---- depths.py

  const sum = (values) => values.reduce((a, b) => a + b, 0);

  const spreadDepth = (blocks, depths) => {
    const all = sum(depths);
    const exact = depths.map((depth) => depth * blocks);
    const shared = exact.map((part) => Math.max(1, Math.floor(part / all)));
    const above = (i) => shared[i] * all - exact[i];
    const order = depths.map((_, i) => i).sort((i, j) => above(i) - above(j) || i - j);
    while (sum(shared) < blocks) order.slice(0, blocks - sum(shared)).forEach((i) => shared[i]++);
    while (sum(shared) > blocks) {
      const spare = depths.map((_, i) => i).filter((i) => shared[i] > 1);
      shared[spare.reduce((best, i) => (above(i) >= above(best) ? i : best))]--;
    }
    return shared;
  };

  const leastDepth = (base, moves) => sum(base.stages.map((stage, i) => (moves[i] ? 1 : stage.depth)));

  const spread = (blocks, base, moves) => {
    const depths = base.stages.map((stage) => stage.depth);
    if (moves.every(Boolean) || !moves.some(Boolean)) return spreadDepth(blocks, depths);
    const fixed = sum(depths.filter((_, i) => !moves[i]));
    const moved = spreadDepth(blocks - fixed, depths.filter((_, i) => moves[i]));
    return depths.map((depth, i) => (moves[i] ? moved.shift() : depth));
  };

  // ---- levelling.py

  const widthChoices = (base, rounding, [low, high], { width_step: step, widest }) => {
    const choices = [];
    const last = Math.floor(decimals(high / step, 6));
    for (let index = Math.max(1, Math.ceil(decimals(low / step, 6))); index <= last; index++) {
      const factor = decimals(index * step, 6);
      const widths = scaleWidths(base, factor, rounding);
      const flat = [widths.stem, ...widths.stages, widths.head, widths.hidden];
      const before = choices.at(-1);
      if (before && before.flat.join() === flat.join()) before.high = factor;
      else choices.push({ widths, flat, low: factor, high: factor });
    }
    return choices.filter((one) => Math.max(...one.flat) <= widest);
  };

  /** Work per pixel at each cumulative stride, linear in the depths. */
  const workOf = (base, widths) => {
    const twice = parts(resize(base, base.stages.map(() => 2), widths, base.resolution));
    const strides = [...new Set(twice.flatMap((part) => part.layers.map((layer) => layer.stride)))];
    const row = (pieces) =>
      strides.map((stride) =>
        sum(pieces.flatMap((part) => part.layers.filter((one) => one.stride === stride).map((one) => one.work))),
      );
    const once = row(twice.filter((part) => !part.repeats));
    const repeats = twice.filter((part) => part.repeats).map((part) => row([part]));
    return { strides, at: (depths) => once.map((work, s) => work + sum(depths.map((d, i) => (d - 1) * repeats[i][s]))) };
  };

  const windowAround = (point, base, rounding, growth, limits) => {
    const [slack, half] = [Math.exp(limits.reach), Math.exp(limits.reach / 2)];
    const clamp = growth >= 1 ? (value) => Math.max(value, 1) : (value) => Math.min(value, 1);
    const around = (value, factor) => [clamp(value / factor), clamp(value * factor)];
    const holds = ([low, high]) => low <= 1 && 1 <= high;
    const [depth, side] = [around(point.depth, slack), around(point.resolution, half)];
    const sides = new Set(holds(side) ? [base.resolution] : []);
    const first = Math.ceil(decimals((base.resolution * side[0]) / limits.step, 9)) * limits.step;
    for (let at = first; at <= Math.floor(decimals(base.resolution * side[1], 9)); at += limits.step) sides.add(at);
    const moves = deepens(base, rounding);
    const blocks = sum(base.stages.map((stage) => stage.depth));
    const depths = new Set(holds(depth) ? [blocks] : []);
    const least = Math.max(leastDepth(base, moves), Math.ceil(decimals(blocks * depth[0], 9)));
    const stride = Math.max(1, Math.floor(blocks / limits.depth_steps));
    const most = moves.some(Boolean) ? Math.floor(decimals(blocks * depth[1], 9)) : 0;
    for (let at = least; at <= most; at += stride) depths.add(at);
    return {
      blocks,
      moves,
      widths: around(point.width, half),
      depths: [...depths].sort((a, b) => a - b),
      sides: [...sides].filter((one) => one >= 1 && one <= limits.largest_side).sort((a, b) => a - b),
    };
  };

  /** Whether a network orders before another: nearer, then cheaper, shallower, smaller. */
  const before = (one, other) => {
    const at = one.key.findIndex((value, i) => value !== other.key[i]);
    return at >= 0 && one.key[at] < other.key[at];
  };

  /** The legal network of `growth` times the compute that is nearest to the point; null where none is near enough. */
  const level = (base, point, growth, rounding, limits) => {
    const found = windowAround(point, base, rounding, growth, limits);
    const asked = growth * count(base).macs;
    const [least, most] = [asked * (1 - limits.tolerance), asked * (1 + limits.tolerance)];
    const spreads = found.depths
      .map((blocks) => ({ blocks, depths: spread(blocks, base, found.moves) }))
      .filter((one) => Math.max(...one.depths) <= limits.deepest);
    let best = null;
    for (const choice of widthChoices(base, rounding, found.widths, limits)) {
      const work = workOf(base, choice.widths);
      const areas = found.sides.map((side) => work.strides.map((stride) => pixels(side, stride)));
      const width = Math.min(Math.max(point.width, choice.low), choice.high);
      for (const { blocks, depths } of spreads) {
        const row = work.at(depths);
        found.sides.forEach((side, i) => {
          const macs = sum(row.map((value, s) => value * areas[i][s]));
          if (macs < least || macs > most) return;
          const squared =
            (Math.log(blocks / found.blocks) - Math.log(point.depth)) ** 2 +
            4 * (Math.log(side / base.resolution) - Math.log(point.resolution)) ** 2 +
            Math.log(macs / asked) ** 2 +
            (width === point.width ? 0 : 4 * Math.log(width / point.width) ** 2);
          if (squared > limits.reach ** 2) return;
          const one = { key: [decimals(squared, 12), macs, blocks, side], depths, widths: choice.widths };
          if (!best || before(one, best)) best = one;
        });
      }
    }
    return best && resize(base, best.depths, best.widths, best.key[3]);
  };

  /** What `scalesearch scale` makes of multipliers and a side [px]; null where levelling finds no network. */
  const asked = (base, rounding, policy, { depth, width, side }, limits) => {
    const at = { depth, width, resolution: side / base.resolution };
    if (depth === 1 && width === 1 && side === base.resolution) return base;
    if (policy === "paper") return scale(base, at, rounding);
    const growth = depth * (width * width) * (at.resolution * at.resolution);
    return level(base, at, growth, rounding, limits);
  };

  return { asked, count, countParts, ceilDiv, hiddenWidth, squeezedWidth, whole };
})();
