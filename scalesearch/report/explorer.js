// The explorer: sliders in, a network out, drawn stage by stage. All arithmetic is in scaling.js.
const Explorer = (() => {
  "use strict";
  const svgNode = (name, attributes = {}) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    return made;
  };
  const node = (name, text = "", kind = "") => {
    const made = document.createElement(name);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const integer = (value) => value.toLocaleString("en-US");
  const short = (value) => {
    const rounded = Number(value.toPrecision(3));
    const [size, unit] = rounded >= 1e9 ? [1e9, "G"] : rounded >= 1e6 ? [1e6, "M"] : rounded >= 1e3 ? [1e3, "k"] : [1, ""];
    return unit ? `${(rounded / size).toPrecision(3)} ${unit}` : `${rounded}`;
  };
  const six = (value) => Number(value.toPrecision(6));

  /** Rows that the network is shown as: the stem, each stage, the head, with what there is to say of each. */
  const rowsOf = (network) => {
    const costs = Scaling.countParts(network);
    let stride = network.stem.stride * network.stem.pool;
    let inputs = network.stem.width;
    const rows = [
      {
        name: "stem",
        operator: `conv ${network.stem.kernel}×${network.stem.kernel}`,
        depth: 1,
        width: network.stem.width,
        stride: stride,
        side: Scaling.ceilDiv(network.resolution, stride),
        layers: [`conv ${network.stem.kernel}×${network.stem.kernel}, 3 → ${network.stem.width} channels`],
      },
    ];
    network.stages.forEach((stage, index) => {
      stride *= stage.stride;
      rows.push({
        name: `stage ${index + 1}`,
        operator: operator(stage),
        depth: stage.depth,
        width: stage.width,
        stride: stage.stride,
        side: Scaling.ceilDiv(network.resolution, stride),
        layers: layersOf(network, stage, inputs),
      });
      inputs = stage.width;
    });
    const wide = network.head.width || inputs;
    rows.push({
      name: "head",
      operator: network.head.width ? "conv 1×1, pool, linear" : "pool, linear",
      depth: 1,
      width: wide,
      stride: 1,
      side: Scaling.ceilDiv(network.resolution, stride),
      layers: [
        ...(network.head.width ? [`conv 1×1, ${inputs} → ${wide} channels`] : []),
        "average pooling to one pixel",
        ...(network.head.hidden ? [`linear, ${wide} → ${network.head.hidden}`] : []),
        `linear, ${network.head.hidden || wide} → ${network.num_classes} classes`,
      ],
    });
    return rows.map((row, index) => ({ ...row, ...costs[index] }));
  };

  const operator = (stage) => {
    const factor = stage.block === "mbconv" ? String(Number(stage.expansion.toPrecision(3))) : "";
    const name = { mbconv: "MBConv", separable: "separable", basic: "basic", bottleneck: "bottleneck" }[stage.block];
    return `${name}${factor} ${stage.kernel}×${stage.kernel}`;
  };

  const layersOf = (network, stage, inputs) => {
    const hidden = Scaling.hiddenWidth(network, stage, inputs);
    const squeezed = Scaling.squeezedWidth(network, stage, inputs);
    const kernel = `${stage.kernel}×${stage.kernel}`;
    const down = stage.stride > 1 ? `, stride ${stage.stride}` : "";
    const [to, own] = [stage.width, stage.groups > 1 ? `, ${stage.groups} groups` : ""];
    const first = {
      mbconv: [
        ...(hidden !== inputs ? [`expand 1×1, ${inputs} → ${hidden}`] : []),
        `depthwise ${kernel} of ${hidden}${down}`,
        ...(squeezed ? [`squeeze-excite through ${squeezed}`] : []),
        `project 1×1, ${hidden} → ${to}`,
      ],
      separable: [`depthwise ${kernel} of ${inputs}${down}`, `pointwise 1×1, ${inputs} → ${to}`],
      basic: [`conv ${kernel}, ${inputs} → ${to}${down}`, `conv ${kernel}, ${to} → ${to}`],
      bottleneck: [
        `conv 1×1, ${inputs} → ${hidden}`,
        `conv ${kernel}, ${hidden} → ${hidden}${down}${own}`,
        `conv 1×1, ${hidden} → ${to}`,
      ],
    }[stage.block];
    return stage.depth > 1 ? [...first, `then ${stage.depth - 1} more, ${to} → ${to} channels`] : first;
  };

  const start = (root, given) => {
    const at = (id) => root.querySelector(`#x-${id}`);
    const base = given.network;
    const baseRows = rowsOf(base);
    const baseCost = Scaling.count(base);
    // one scale for the whole family, so that growth is seen
    const bodies = given.marks.map((mark) => rowsOf(mark.network));
    const tallest = Math.max(...bodies.map((rows) => rows[0].side));
    const widest = Math.max(...bodies.map((rows) => rows.reduce((sum, row) => sum + row.depth * (Math.sqrt(row.width) + 1) + 5, 0)));
    const state = { phi: 1, alpha: 1, beta: 1, gamma: 1, rule: "", policy: "level", open: null };
    const sliders = ["phi", "alpha", "beta", "gamma"];

    const multipliers = () => ({
      depth: six(state.alpha ** state.phi),
      width: six(state.beta ** state.phi),
      side: Math.max(1, Scaling.whole(base.resolution * state.gamma ** state.phi)),
    });

    /** Whether the members that were written are those of this rule. */
    const isOwn = () => state.rule === given.rules[0].name && state.policy === "level";

    /** The member that was written for exactly this setting, if there is one. */
    const member = () =>
      isOwn()
        ? given.marks.find((mark) => Math.abs(mark.phi - state.phi) < 1e-9)
        : undefined;

    const found = () => {
      const written = member();
      const point = multipliers();
      const network = written ? written.network : Scaling.asked(base, given.rounding, state.policy, point, given.limits);
      return { written, point, network };
    };

    const command = ({ depth, width, side }) =>
      `scalesearch scale --base ${given.base_word} --rounding ${state.policy} --depth ${depth} --width ${width} --resolution ${side}`;

    const fromTool = `The same numbers from the tool${given.is_file ? `, with the path of your own base for ${given.base_word}` : ""}:`;

    const draw = () => {
      const { written, point, network } = found();
      const growth = (state.alpha * state.beta ** 2 * state.gamma ** 2) ** state.phi;
      for (const name of sliders) {
        at(name).value = state[name];
        const shown = `${Number(state[name].toFixed(name === "phi" ? 2 : 4))}`;
        at(`${name}-value`).textContent = shown;
        at(name).setAttribute("aria-valuetext", shown);
      }
      at("asked").textContent = `${growth.toFixed(2)}×`;
      at("command").textContent = written && written.phi ? `family/${written.name}/config.yaml` : command(point);
      at("source").textContent = written && written.phi ? `This is ${written.name} as the run wrote it:` : fromTool;
      root.querySelectorAll("[data-rule]").forEach((button) => button.setAttribute("aria-pressed", button.dataset.rule === state.rule));
      root.querySelectorAll("[data-mark]").forEach((button) => {
        button.setAttribute("aria-pressed", Math.abs(Number(button.dataset.phi) - state.phi) < 1e-9);
        button.textContent = isOwn() || Number(button.dataset.phi) === 0 ? button.dataset.mark : `φ ${Number(Number(button.dataset.phi).toFixed(2))}`;
      });
      at("nothing").hidden = network !== null;
      at("found").hidden = network === null;
      if (network !== null) show(network, growth);
    };

    const show = (network, growth) => {
      const cost = Scaling.count(network);
      const blocks = network.stages.reduce((all, stage) => all + stage.depth, 0);
      const facts = {
        macs: integer(cost.macs),
        params: integer(cost.params),
        activations: integer(cost.activations),
        growth: `${(cost.macs / baseCost.macs).toFixed(3)}×`,
        resolution: `${network.resolution} px`,
        blocks: `${blocks}`,
        widths: network.stages.map((stage) => stage.width).join(" "),
        depths: network.stages.map((stage) => stage.depth).join(" "),
      };
      Object.entries(facts).forEach(([id, text]) => (at(id).textContent = text));
      at("say").textContent = `${network.resolution} pixels, ${blocks} blocks, ${short(cost.macs)} multiply-adds, ${short(cost.params)} parameters`;
      const rows = rowsOf(network);
      silhouette(rows, network);
      table(rows, cost);
    };

    /** One slab for every block: as high as its map, as thick as its channels. */
    const silhouette = (rows, network) => {
      const picture = at("picture");
      const width = Math.max(300, picture.clientWidth || 300);
      const height = 170;
      const slabs = rows.flatMap((row, index) =>
        Array.from({ length: row.depth }, () => ({ index, high: row.side, thick: Math.sqrt(row.width) })),
      );
      const gaps = rows.length * 5 + slabs.length;
      const all = slabs.reduce((sum, slab) => sum + slab.thick, 0);
      const largest = Math.sqrt(Math.max(rows[0].side, tallest));
      const unit = Math.min(2.5, width / widest, (width - gaps) / all);
      const drawn = svgNode("svg", { viewBox: `0 0 ${width} ${height + 22}`, width, height: height + 22 });
      let x = Math.max(0, (width - gaps - all * unit) / 2);
      let last = 0;
      for (const slab of slabs) {
        if (slab.index !== last) x += 5;
        const tall = Math.max(4, (Math.sqrt(slab.high) / largest) * height);
        const thick = Math.max(0.8, slab.thick * unit);
        const box = svgNode("rect", { x, y: (height - tall) / 2, width: thick, height: tall, rx: 1 });
        box.setAttribute("class", `slab ${slab.index === state.open ? "open" : ""} ${slab.index % 2 ? "odd" : "even"}`);
        box.addEventListener("click", () => toggle(slab.index));
        drawn.append(box);
        if (slab.index !== last || x === 0 || slab === slabs[0]) {
          const label = svgNode("text", { x, y: height + 16, class: "tick" });
          label.textContent = slab.index === 0 ? "" : slab.index === rows.length - 1 ? "head" : String(slab.index);
          drawn.append(label);
        }
        [x, last] = [x + thick + 1, slab.index];
      }
      picture.replaceChildren(drawn);
    };

    const toggle = (index) => {
      state.open = state.open === index ? null : index;
      draw();
      root.querySelector(`[data-row="${index}"]`).focus();
    };

    const bar = (value, ghost, most) => {
      const made = node("span", "", "bar");
      const fill = node("span", "", "fill");
      const before = node("span", "", "ghost");
      fill.style.width = `${(100 * value) / most}%`;
      before.style.left = `${(100 * Math.min(ghost, most)) / most}%`;
      made.append(fill, before);
      made.setAttribute("aria-hidden", "true");
      return made;
    };

    const number = (value, ghost, most) => {
      const cell = node("td", "", "number");
      cell.append(node("span", short(value)), bar(value, ghost, most));
      cell.title = integer(value);
      return cell;
    };

    const table = (rows, cost) => {
      const held = document.activeElement?.dataset?.row;
      const most = { macs: Math.max(...rows.map((row) => row.macs)), params: Math.max(...rows.map((row) => row.params)) };
      const body = at("rows");
      body.replaceChildren();
      rows.forEach((row, index) => {
        const line = node("tr");
        const head = node("th");
        head.scope = "row";
        const button = node("button", row.name, "more");
        button.dataset.row = index;
        button.setAttribute("aria-expanded", state.open === index);
        button.addEventListener("click", () => toggle(index));
        head.append(button);
        const was = baseRows[index];
        const changed = (value, before) => node("td", value, value === before ? "" : "changed");
        line.append(head, node("td", row.operator, "operator"), changed(`${row.depth}`, `${was.depth}`));
        line.append(changed(`${row.width}`, `${was.width}`), changed(`${row.side}`, `${was.side}`));
        line.append(node("td", `${row.stride}`, "stride"), number(row.macs, was.macs, most.macs), number(row.params, was.params, most.params));
        body.append(line);
        if (state.open === index) body.append(details(row, was, cost));
      });
      if (held !== undefined) root.querySelector(`[data-row="${held}"]`)?.focus();
    };

    const details = (row, was, cost) => {
      const line = node("tr", "", "details");
      const cell = node("td");
      cell.colSpan = 8;
      const layers = node("ol");
      row.layers.forEach((text) => layers.append(node("li", text)));
      const share = (name) => `${((100 * row[name]) / cost[name]).toFixed(1)} %`;
      const said = `${integer(row.macs)} multiply-adds (${share("macs")}), ${integer(row.params)} parameters (${share("params")}), ${integer(row.activations)} activations; map ${row.side} × ${row.side} px. In ${given.base}: ${was.depth} deep, ${was.width} wide, ${was.side} px.`;
      cell.append(layers, node("p", said));
      line.append(cell);
      return line;
    };

    const choose = (rule) => {
      Object.assign(state, { alpha: rule.alpha, beta: rule.beta, gamma: rule.gamma, rule: rule.name });
      draw();
    };

    for (const name of sliders) {
      at(name).addEventListener("input", (event) => {
        state[name] = Number(event.target.value);
        if (name !== "phi") state.rule = "";
        draw();
      });
    }
    root.querySelectorAll("[name=x-policy]").forEach((one) =>
      one.addEventListener("change", () => {
        state.policy = one.value;
        draw();
      }),
    );
    root.querySelectorAll("[data-rule]").forEach((button) =>
      button.addEventListener("click", () => choose(given.rules.find((rule) => rule.name === button.dataset.rule))),
    );
    root.querySelectorAll("[data-mark]").forEach((button) =>
      button.addEventListener("click", () => {
        state.phi = Number(button.dataset.phi);
        draw();
      }),
    );
    at("phi").max = given.farthest;
    let waiting = 0;
    new ResizeObserver(() => {
      cancelAnimationFrame(waiting);
      waiting = requestAnimationFrame(draw);
    }).observe(at("picture"));
    choose(given.rules[0]);
  };

  return { start };
})();
