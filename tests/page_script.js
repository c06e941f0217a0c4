// Runs the page's script in node, as its elements would: node page_script.js PAGE.html SCENARIO
// Nothing is drawn; `log` has what would be. The scenario is the body of an async function, and its result is printed.
"use strict";
const fs = require("fs"), vm = require("vm");

const log = [], elements = {}, streams = [], asked = [], widths = [];
const wait = ms => new Promise(done => setTimeout(done, ms));

const pen = new Proxy({ drawImage: image => log.push(`picture ${image.of}`) }, { get: (own, key) => own[key] || (() => {}), set(own, key, value) { if (key === "lineWidth") widths.push(value); return true; } });
const make = () => ({
  listeners: {}, style: {}, dataset: {}, value: "both", checked: false, files: [], classList: { toggle() {} }, textContent: "",
  addEventListener(name, work) { this.listeners[name] = work; },
  querySelector: () => make(), replaceChildren() {}, append() {}, prepend() {}, getContext: () => pen,
  get firstChild() { return make(); },
  play: async () => {}, videoWidth: 8, videoHeight: 8, toBlob: done => setTimeout(() => done(image("frame", 0)), 1),
});

// An image file whose answer takes `delay` ms, and is known by its width.
const image = (name, width, delay = 1, size = 1000) => ({ name, width, delay, size, type: "image/jpeg" });
const server = { isThere: true };

const page = {
  console, setTimeout,
  document: { getElementById: id => elements[id] ??= make(), querySelectorAll: () => [], querySelector: make, createElement: make, addEventListener() {} },
  createImageBitmap: async file => ({ of: file.name }),
  async fetch(place, { body }) {
    asked.push(body.name);
    if (!server.isThere) throw new Error("Failed to fetch");
    await wait(body.delay);
    return { ok: true, json: async () => ({ width: body.width, height: 1, faces: body.faces || [], reconstruction: null }) };
  },
  navigator: { mediaDevices: { async getUserMedia() {
    await wait(20);
    const stream = { isLive: true, getTracks: () => [{ stop() { stream.isLive = false; } }] };
    streams.push(stream);
    return stream;
  } } },
};
vm.createContext(page);
const script = fs.readFileSync(process.argv[2], "utf8").match(/<script>([\s\S]*)<\/script>/)[1];
vm.runInContext(`${script}; globalThis.shown = () => ({ picture: bitmap && bitmap.of, width: answer && answer.width });`, page);

const Scenario = (async () => {}).constructor;
const names = { page, image, wait, log, elements, streams, asked, server, widths };
new Scenario(...Object.keys(names), process.argv[3])(...Object.values(names)).then(result => {
  console.log(JSON.stringify(result));
  process.exit();
});
