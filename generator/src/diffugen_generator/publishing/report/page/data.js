// Loads the dataset's data files. Each is a script with one call of DiffuGenReport.receive, because a page that was
// opened from a folder may load scripts but may not fetch files. The argument is JSON text; nothing in it is run.
"use strict";

var DiffuGenReport = (() => {
  const KEPT = 160; // blocks of labels and of maps that stay in memory, each about 100 kB
  const ROWS_OF_BLOCK = 64;
  const waiting = new Map();
  const kept = new Map();
  const thumbnails = new Map();

  function receive(name, text) {
    const entry = waiting.get(name);
    if (entry) entry.resolve(JSON.parse(text));
  }

  // Resolves with the content of report/<name>.js.
  function load(name) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      const fail = () => reject(new Error(`report/${name}.js is missing or damaged`));
      waiting.set(name, { resolve });
      script.charset = "utf-8";
      script.src = `report/${name}.js`;
      script.onerror = fail;
      script.onload = () => {
        waiting.delete(name);
        script.remove();
        fail(); // without effect where the file has called receive
      };
      document.head.append(script);
    });
  }

  function remembered(cache, key, make) {
    let found = cache.get(key);
    if (found === undefined) found = make();
    cache.delete(key);
    cache.set(key, found); // the last of the map is the one used last
    if (cache.size > KEPT) cache.delete(cache.keys().next().value);
    found.catch(() => cache.delete(key));
    return found;
  }

  const padded = (number) => String(number).padStart(5, "0");
  const blockOf = (row) => Math.floor(row / ROWS_OF_BLOCK);

  // Resolves with the labels of a sample: a line of report/samples/.
  async function sample(row) {
    const name = `samples/${padded(blockOf(row))}`;
    return (await remembered(kept, name, () => load(name)))[row % ROWS_OF_BLOCK];
  }

  // Resolves with the attention maps of a sample, or null: {classes, background, size: [h, w], presence, maps}.
  async function maps(row) {
    const name = `maps/${padded(blockOf(row))}`;
    return (await remembered(kept, name, () => load(name).then(unpacked)))[row % ROWS_OF_BLOCK];
  }

  async function unpacked(content) {
    if (content === null) return new Array(ROWS_OF_BLOCK).fill(null);
    const stream = new Blob([bytes(content.data)]).stream().pipeThrough(new DecompressionStream("deflate"));
    const all = new Uint8Array(await new Response(stream).arrayBuffer());
    let from = 0;
    return content.samples.map((head) => {
      if (head === null) return null;
      const [height, width] = head.size;
      const found = [];
      for (let word = 0; word < head.classes.length + head.background.length; word += 1) {
        found.push(all.subarray(from, from + height * width));
        from += height * width;
      }
      return { ...head, maps: found };
    });
  }

  // Resolves with the image that has the thumbnail of a sample, and the corner of its cell.
  async function thumbnail(row, cell) {
    const number = blockOf(row);
    const image = await remembered(thumbnails, number, () => picture(`report/thumbnails/${padded(number)}.jpg`));
    const place = row % ROWS_OF_BLOCK;
    return { image, x: (place % 8) * cell, y: Math.floor(place / 8) * cell };
  }

  function picture(source) {
    return new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => reject(new Error(`${source} is missing or damaged`));
      image.src = source;
    });
  }

  // Bytes of a base64 text.
  function bytes(text) {
    const binary = atob(text);
    const found = new Uint8Array(binary.length);
    for (let at = 0; at < binary.length; at += 1) found[at] = binary.charCodeAt(at);
    return found;
  }

  // Little-endian numbers of a base64 text, of 8 or 16 bits.
  const numbers8 = bytes;
  function numbers16(text) {
    const raw = bytes(text);
    const found = new Uint16Array(raw.length / 2);
    for (let at = 0; at < found.length; at += 1) found[at] = raw[2 * at] | (raw[2 * at + 1] << 8);
    return found;
  }

  return { receive, data: { load, sample, maps, thumbnail, picture, numbers8, numbers16, padded } };
})();
