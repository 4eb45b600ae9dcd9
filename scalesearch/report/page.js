// The page around its figures: theme, tips, zooming. Plotly is read only when somebody zooms.
(() => {
  "use strict";
  const root = document.documentElement;
  const data = JSON.parse(document.getElementById("data").textContent);

  const theme = document.getElementById("theme");
  const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const told = () => (theme.textContent = isDark() ? "Light" : "Dark");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    told();
  });
  told();

  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((one) => (one.open = true));
  });
  addEventListener("afterprint", () => folded.forEach((one) => (one.open = false)));

  const tip = document.getElementById("tip");
  for (const title of document.querySelectorAll("svg.figure title")) {
    title.parentNode.dataset.tip = title.textContent;
    title.remove();
  }
  document.addEventListener("pointerover", (event) => {
    tip.textContent = event.target.dataset?.tip ?? "";
  });
  document.addEventListener("pointermove", (event) => {
    if (!tip.textContent) return;
    const [x, y] = [event.clientX + 14, event.clientY + 16];
    tip.style.left = `${Math.max(4, Math.min(x, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${y + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : y}px`;
  });

  // ---- a figure's marks for plotly

  const paint = (kind, form) => {
    const probe = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    probe.setAttribute("class", "figure");
    const inner = document.createElementNS("http://www.w3.org/2000/svg", "path");
    inner.setAttribute("class", `${form} ${kind}`);
    probe.append(inner);
    document.body.append(probe);
    const style = getComputedStyle(inner);
    const found = { fill: style.fill, stroke: style.stroke, width: parseFloat(style.strokeWidth), opacity: Number(style.fillOpacity), dash: style.strokeDasharray, clear: Number(style.strokeOpacity) };
    probe.remove();
    return found;
  };
  const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;"); // plotly reads tags in its texts
  const solid = (colour) => (colour === "none" ? "rgba(0,0,0,0)" : colour);
  const SYMBOLS = { stopped: "x-thin", failed: "x-thin", off: "x-thin", theirs: "diamond", reference: "diamond" };
  const PLACES = { left: "middle left", right: "middle right", above: "top center", below: "bottom center", centre: "middle center" };
  const ANCHORS = { above: { yanchor: "bottom", yshift: 4 }, below: { yanchor: "top", yshift: -4 } };

  const traces = {
    spots(mark) {
      const style = paint(mark.kind, "spot");
      const symbol = SYMBOLS[mark.kind] ?? "circle";
      const line = { color: solid(style.stroke), width: style.width };
      return [{
        type: "scatter", mode: mark.spots.some((spot) => spot.label) ? "markers+text" : "markers", name: plain(mark.name), showlegend: Boolean(mark.name),
        x: mark.spots.map((spot) => spot.x), y: mark.spots.map((spot) => spot.y), text: mark.spots.map((spot) => plain(spot.label)),
        textposition: mark.spots.map((spot) => PLACES[spot.side ?? "right"]), customdata: mark.spots.map((spot) => plain(spot.tip)), hovertemplate: "%{customdata}<extra></extra>",
        marker: { size: 10, symbol, color: solid(style.fill), line },
      }];
    },
    lines(mark) {
      const style = paint(mark.kind, "line");
      const gap = (values) => values.flatMap((value) => [...value, null]);
      return [{
        type: "scatter", mode: "lines", name: plain(mark.name), showlegend: Boolean(mark.name), hoverinfo: "skip", opacity: style.clear,
        x: gap(mark.lines.map((line) => line.places.map((place) => place[0]))), y: gap(mark.lines.map((line) => line.places.map((place) => place[1]))),
        line: { color: solid(style.stroke), width: style.width, dash: style.dash === "none" ? "solid" : "dot" },
      }];
    },
    cells(mark) {
      return mark.levels.flatMap((name, level) => {
        const own = mark.cells.filter((cell) => cell[1] === level).map((cell) => [...cell[0], cell[0][0]]);
        if (!own.length) return [];
        const style = paint(`${mark.kind} level${level}`, "cell");
        const colour = style.fill.replace("rgb(", "rgba(").replace(")", `, ${style.opacity})`);
        const gap = (place) => own.flatMap((corners) => [...corners.map((corner) => corner[place]), null]);
        return [{ type: "scatter", mode: "lines", fill: "toself", x: gap(0), y: gap(1), line: { width: 0 }, fillcolor: colour, hoverinfo: "skip", name: plain(name), showlegend: Boolean(name) }];
      });
    },
    zone: () => [],
    note: () => [],
  };

  const shapes = (figure) =>
    figure.marks.filter((mark) => mark.form === "zone").map((mark) => {
      const style = paint(mark.kind, "zone");
      const span = (ends, axis) => ends.map((end, i) => end ?? (i ? axis.high : axis.low));
      const [x, y] = [span(mark.x, figure.x), span(mark.y, figure.y)];
      return { type: "rect", layer: "below", x0: x[0], x1: x[1], y0: y[0], y1: y[1], fillcolor: solid(style.fill), line: { color: solid(style.stroke), width: style.stroke === "none" ? 0 : 1 } };
    });

  const axis = (one) => {
    const ends = one.is_log ? [Math.log10(one.low), Math.log10(one.high)] : [one.low, one.high];
    const marks = one.ticks.length ? { tickvals: one.ticks.map((tick) => tick[0]), ticktext: one.ticks.map((tick) => plain(tick[1])) } : { visible: false };
    return { title: { text: one.title }, type: one.is_log ? "log" : "linear", range: ends, zeroline: false, showgrid: one.has_grid, automargin: true, ticklabelstandoff: 6, ...marks };
  };

  const notes = (figure) => {
    const said = (x, y, text, ...more) => Object.assign({ x, y, text: plain(text), showarrow: false }, ...more);
    const lines = figure.marks.filter((mark) => mark.form === "lines").flatMap((mark) => mark.lines);
    return [
      ...figure.beside.map(([y, text]) => said(1, ...(y > figure.y.high ? [1, text, { yref: "paper", yanchor: "bottom" }] : [y, text]), { xref: "paper", xanchor: "left" })),
      ...figure.marks.filter((mark) => mark.form === "note").map((mark) => said(mark.x, mark.y, mark.text, ANCHORS[mark.side])),
      ...lines.filter((line) => line.label).map((line) => said(...line.places.at(-1), line.label, { xanchor: "left", xshift: 4 })),
    ];
  };

  const layout = (figure) => {
    const style = getComputedStyle(document.body);
    const grid = getComputedStyle(document.querySelector("nav")).borderBottomColor;
    const [x, y] = [axis(figure.x), axis(figure.y)];
    return {
      font: { family: style.fontFamily, color: style.color, size: 13 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 60, r: figure.beside.length ? 70 : 20, t: 70, b: 50 }, hovermode: "closest", legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, shapes: shapes(figure),
      annotations: notes(figure),
      modebar: { bgcolor: "rgba(0,0,0,0)", color: getComputedStyle(document.querySelector("nav a")).color, activecolor: style.color },
      xaxis: { ...x, gridcolor: grid }, yaxis: { ...y, gridcolor: grid, ...(figure.is_square ? { scaleanchor: "x" } : {}) },
    };
  };

  const plotly = () => {
    if (!window.Plotly) {
      const script = document.createElement("script");
      script.textContent = document.getElementById("plotly").textContent;
      document.head.append(script);
    }
    return window.Plotly;
  };

  const BUTTONS = [["toImage", "pan2d", "zoom2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]];
  const dialog = document.getElementById("zoom");
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const figure = data.figures[button.dataset.zoom];
      document.getElementById("zoom-title").textContent = figure.title;
      dialog.showModal();
      const drawn = figure.marks.flatMap((mark) => traces[mark.form](mark));
      plotly().newPlot("zoomed", drawn, layout(figure), { responsive: true, displaylogo: false, modeBarButtons: BUTTONS });
    });
  }
  document.getElementById("zoom-close").addEventListener("click", () => dialog.close());

  if (data.explorer) Explorer.start(document.getElementById("explorer"), data.explorer);
})();
