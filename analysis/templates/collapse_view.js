(() => {
  "use strict";
  // A shape and a colour for each action, so that neither alone carries the meaning.
  const SHAPES = [
    "M1 0A1 1 0 1 1-1 0A1 1 0 1 1 1 0Z",
    "M-.9-.9H.9V.9H-.9Z",
    "M0-1.2L1.1.8H-1.1Z",
    "M0-1.3L1.1 0L0 1.3L-1.1 0Z",
    "M0 1.2L1.1-.8H-1.1Z",
    "M-.4-1.1H.4V-.4H1.1V.4H.4V1.1H-.4V.4H-1.1V-.4H-.4Z",
    "M0-1.2L1.14-.37L.7.97H-.7L-1.14-.37Z",
    "M-1.1-.55L0-1.2L1.1-.55V.55L0 1.2L-1.1.55Z",
  ];
  const COLOURS = 6;
  // Half the picture's height, and how far the eye is, in lengths of the longest vector.
  const HALF = 112;
  const EYE = 3.5;
  const START = { yaw: 0.55, pitch: 0.3 };
  const TURN = 0.2;
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");

  const format = (x) =>
    x === null ? "undefined" : Math.abs(x) < 1e-3 && x !== 0 ? x.toExponential(1) : x.toFixed(3);

  function start(section) {
    const one = (selector) => section.querySelector(selector);
    const all = (selector) => [...section.querySelectorAll(selector)];
    const data = JSON.parse(one("[data-view]").textContent);
    const steps = [...new Set(data.tracks.flatMap((track) => track.steps))].sort((a, b) => a - b);
    const [slider, play, shown] = [one("[data-slider]"), one("[data-play]"), one("[data-step]")];
    const selects = all("[data-track]");
    const stages = all("[data-stage]");
    const pictures = stages.map((stage) => stage.querySelector("svg"));
    const view = { ...START };
    // The farthest point, seen from its worst side, touches the edge of the picture.
    const radius = data.tracks
      .flatMap((track) => [...track.points, ...track.head].flat())
      .reduce((longest, point) => Math.max(longest, Math.hypot(...point)), 1);
    const unit = (HALF * Math.sqrt(1 - EYE ** -2)) / radius;
    const eye = EYE * radius;
    let timer = null;

    function element(name, attributes, text) {
      const made = document.createElementNS(pictures[0].namespaceURI, name);
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      if (text !== undefined) made.textContent = text;
      return made;
    }

    // Turntable about the vertical axis, seen from above by the pitch, with weak perspective.
    function project([x, y, z]) {
      const [cy, sy, cp, sp] = [
        Math.cos(view.yaw), Math.sin(view.yaw), Math.cos(view.pitch), Math.sin(view.pitch),
      ];
      const near = -(sy * x + cy * y);
      const depth = near * cp + z * sp;
      const scale = (unit * eye) / (eye - depth);
      return { x: (cy * x - sy * y) * scale, y: (near * sp - z * cp) * scale, depth };
    }

    function mark(action, size, at, kind) {
      return element("path", {
        d: SHAPES[action % SHAPES.length],
        class: `${kind} c${action % COLOURS}`,
        transform: `translate(${at.x.toFixed(2)} ${at.y.toFixed(2)}) scale(${size})`,
        "data-mark": kind === "filled" ? "feature" : "head",
      });
    }

    // The last stored step of the track that is not after the slider's.
    function indexIn(track) {
      const now = steps[slider.valueAsNumber];
      return Math.max(0, track.steps.findLastIndex((step) => step <= now));
    }

    function describe(track, index) {
      const numbers = data.numbers.map((name, i) => `${name} ${format(track.numbers[index][i])}`);
      return (
        `${track.label}, ${data.unit} ${track.steps[index]}: ${track.points[index].length} ` +
        `features of ${data.actions.length} actions; ${numbers.join(", ")}`
      );
    }

    function draw(panel) {
      const track = data.tracks[Number(selects[panel].value)];
      const index = indexIn(track);
      const origin = project([0, 0, 0]);
      const items = [];
      (data.reference || []).forEach((one, i, vertices) =>
        vertices.slice(i + 1).forEach((other) => {
          const [a, b] = [project(one), project(other)];
          items.push({ depth: -Infinity, nodes: [line(a, b, "frame")] });
        }),
      );
      track.head[index].forEach((row, action) => {
        const tip = project(row);
        const stretch = 1 + 21 / Math.max(25, Math.hypot(tip.x, tip.y));
        const label = element(
          "text",
          { x: (tip.x * stretch).toFixed(2), y: (tip.y * stretch + 3.5).toFixed(2) },
          data.actions[action],
        );
        items.push({
          depth: tip.depth,
          nodes: [line(origin, tip, `arm c${action % COLOURS}`), mark(action, 7, tip, "open")],
        });
        items.push({ depth: -Infinity, nodes: [label] });
      });
      const size = track.points[index].length > 60 ? 2.6 : 4.2;
      track.points[index].forEach((point, i) => {
        const at = project(point);
        const node = mark(track.labels[index][i], size, at, "filled");
        items.push({ depth: at.depth, nodes: [node] });
      });
      items.sort((a, b) => (a.depth < b.depth ? -1 : a.depth > b.depth ? 1 : 0));
      pictures[panel].replaceChildren(...items.flatMap((item) => item.nodes));
      pictures[panel].setAttribute("aria-label", describe(track, index));
      const cells = all(`[data-numbers] tr > :nth-child(${panel + 2})`);
      cells[0].textContent = `${track.label}, ${data.unit} ${track.steps[index]}`;
      track.numbers[index].forEach((value, i) => (cells[i + 1].textContent = format(value)));
    }

    function line(a, b, kind) {
      const [x1, y1, x2, y2] = [a.x, a.y, b.x, b.y].map((value) => value.toFixed(2));
      return element("line", { x1, y1, x2, y2, class: kind });
    }

    function update() {
      pictures.forEach((_, panel) => draw(panel));
      shown.textContent = `${data.unit} ${steps[slider.valueAsNumber]}`;
      slider.setAttribute("aria-valuetext", `${shown.textContent} of ${steps.at(-1)}`);
    }

    function turn(yaw, pitch) {
      view.yaw += yaw;
      view.pitch = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, view.pitch + pitch));
      update();
    }

    function reset() {
      Object.assign(view, START);
      update();
    }

    function stop() {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
    }

    function advance() {
      slider.valueAsNumber += 1;
      update();
      if (slider.valueAsNumber >= steps.length - 1) stop();
    }

    function toggle() {
      if (timer !== null) return stop();
      if (slider.valueAsNumber >= steps.length - 1) slider.valueAsNumber = 0;
      play.textContent = "Pause";
      // Whoever asks for less motion gets separate pictures instead of a film.
      timer = setInterval(advance, still.matches ? 1500 : 140);
      update();
    }

    function drag(stage) {
      let last = null;
      stage.addEventListener("pointerdown", (event) => {
        last = [event.clientX, event.clientY];
        stage.setPointerCapture(event.pointerId);
      });
      stage.addEventListener("pointermove", (event) => {
        if (last === null) return;
        turn((last[0] - event.clientX) * -0.01, (event.clientY - last[1]) * 0.01);
        last = [event.clientX, event.clientY];
      });
      for (const end of ["pointerup", "pointercancel"]) {
        stage.addEventListener(end, () => (last = null));
      }
      const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
      stage.addEventListener("keydown", (event) => {
        if (!(event.key in keys)) return;
        event.preventDefault();
        turn(...keys[event.key].map((sign) => sign * TURN));
      });
    }

    function legend() {
      return data.actions.map((name, action) => {
        const item = document.createElement("li");
        const picture = element("svg", { viewBox: "-1.4 -1.4 2.8 2.8", "aria-hidden": "true" });
        picture.append(mark(action, 1, { x: 0, y: 0 }, "filled"));
        item.append(picture, name);
        return item;
      });
    }

    slider.max = steps.length - 1;
    slider.addEventListener("input", () => {
      stop();
      update();
    });
    play.addEventListener("click", toggle);
    selects.forEach((select) => select.addEventListener("change", update));
    stages.forEach(drag);
    all("[data-turn]").forEach((button) => {
      const signs = button.dataset.turn.split(" ").map(Number);
      button.addEventListener("click", () => turn(...signs.map((sign) => sign * TURN)));
    });
    one("[data-reset]").addEventListener("click", reset);
    one("[data-legend]").replaceChildren(...legend());
    update();
  }

  document.querySelectorAll("[data-collapse-view]").forEach(start);
})();
