// The index: what the page filters by and counts, in columns over all samples and over all objects.
"use strict";

DiffuGenReport.table = (() => {
  const { numbers8, numbers16 } = DiffuGenReport.data;
  const NO_VALUE = 0xffff;
  const NO_SPLIT = 255;
  const NO_OVERLAP = 255;

  // A column of numbers that grows.
  class Column {
    constructor(kind) {
      this.kind = kind;
      this.values = new kind(1024);
      this.length = 0;
    }
    append(numbers, add = 0) {
      const needed = this.length + numbers.length;
      if (needed > this.values.length) {
        const larger = new this.kind(Math.max(needed, 2 * this.values.length));
        larger.set(this.values.subarray(0, this.length));
        this.values = larger;
      }
      for (let at = 0; at < numbers.length; at += 1) this.values[this.length + at] = numbers[at] + add;
      this.length = needed;
    }
  }

  // Distinct texts, numbered in the order of their first use.
  class Words {
    constructor(...texts) {
      this.texts = texts;
      this.numbers = new Map(texts.map((text, number) => [text, number]));
    }
    number(text) {
      if (!this.numbers.has(text)) this.numbers.set(text, this.texts.push(text) - 1);
      return this.numbers.get(text);
    }
    indexOf(text) {
      return this.numbers.has(text) ? this.numbers.get(text) : -1;
    }
  }

  class Table {
    constructor() {
      this.rows = 0;
      this.ids = [];
      this.sources = [];
      this.prompts = [];
      this.lower = [];
      this.reasons = new Words("");
      this.marks = new Words();
      this.stage = new Column(Uint8Array);
      this.split = new Column(Uint8Array);
      this.reason = new Column(Uint16Array);
      this.prompt = new Column(Uint32Array);
      this.first = new Column(Uint32Array); // of its objects
      this.count = new Column(Uint16Array);
      this.lowest = new Column(Uint8Array); // score of 0..255; of no object: 255
      this.objects = {};
      for (const name of ["score", "x", "y", "iou"]) this.objects[name] = new Column(Uint8Array);
      for (const name of ["class", "size"]) this.objects[name] = new Column(Uint16Array);
      this.marked = { row: new Column(Uint32Array), mark: new Column(Uint16Array), class: new Column(Uint16Array) };
      this.dropped = new Map(); // reason: [row, count] pairs
      this.variables = new Map(); // name: {values, column of value + 1, or 0 where the sample has none}
      this.byId = null;
    }

    add(chunk) {
      const begin = this.rows;
      const size = chunk.ids.length;
      for (const id of chunk.ids) this.ids.push(id);
      for (let at = 0; at < size; at += 1) this.sources.push(chunk.sources ? chunk.sources[at] : "");
      this.stage.append(numbers8(chunk.stage));
      this.split.append(numbers8(chunk.split));
      this.prompt.append(numbers16(chunk.prompt), this.prompts.length);
      for (const text of chunk.prompts) {
        this.prompts.push(text);
        this.lower.push(text.toLowerCase());
      }
      const reasons = chunk.reasons.map((text) => this.reasons.number(text));
      this.reason.append(numbers16(chunk.reason).map((number) => reasons[number]));
      this.addObjects(chunk);
      const marks = chunk.marks.map((text) => this.marks.number(text));
      this.marked.row.append(numbers16(chunk.marked.row), begin);
      this.marked.mark.append(numbers16(chunk.marked.mark).map((number) => marks[number]));
      this.marked.class.append(numbers16(chunk.marked.class));
      for (const [reason, packed] of Object.entries(chunk.dropped)) {
        if (!this.dropped.has(reason)) this.dropped.set(reason, []);
        numbers16(packed).forEach((count, at) => count && this.dropped.get(reason).push([begin + at, count]));
      }
      for (const { name, values, value } of chunk.variables) this.addVariable(begin, name, values, numbers16(value));
      this.rows += size;
      for (const known of this.variables.values()) {
        known.column.append(new Uint16Array(this.rows - known.column.length));
      }
      this.byId = null;
    }

    addObjects(chunk) {
      const counts = numbers16(chunk.count);
      const scores = numbers8(chunk.objects.score);
      const first = new Uint32Array(counts.length);
      const lowest = new Uint8Array(counts.length).fill(255);
      let at = 0;
      for (let row = 0; row < counts.length; row += 1) {
        first[row] = at;
        for (const end = at + counts[row]; at < end; at += 1) lowest[row] = Math.min(lowest[row], scores[at]);
      }
      this.first.append(first, this.objects.score.length);
      this.count.append(counts);
      this.lowest.append(lowest);
      for (const [name, column] of Object.entries(this.objects)) {
        column.append(column.kind === Uint8Array ? numbers8(chunk.objects[name]) : numbers16(chunk.objects[name]));
      }
    }

    addVariable(begin, name, values, numbers) {
      if (!this.variables.has(name)) this.variables.set(name, { values: new Words(), column: new Column(Uint32Array) });
      const known = this.variables.get(name);
      known.column.append(new Uint16Array(begin - known.column.length));
      const global = values.map((text) => known.values.number(text) + 1);
      known.column.append(Uint32Array.from(numbers, (number) => (number === NO_VALUE ? 0 : global[number])));
    }

    promptOf(row) {
      return this.prompts[this.prompt.values[row]];
    }

    reasonOf(row) {
      return this.reasons.texts[this.reason.values[row]];
    }

    rowOf(id) {
      if (this.byId === null) this.byId = new Map(this.ids.map((each, row) => [each, row]));
      return this.byId.get(id);
    }

    derivativesOf(id) {
      const found = [];
      for (let row = 0; row < this.rows; row += 1) if (this.sources[row] === id) found.push(row);
      return found;
    }

    // The rows that a query accepts, as numbers in order. Query: {status, class, split, stage, reason (numbers, -1 for
    // any), low, high (0..1), words, variables: {name: value}, order}.
    filter(query) {
      const { status, low, high } = query;
      const prompts = query.words ? this.promptsWith(query.words) : null;
      const wanted = [];
      for (const [name, value] of Object.entries(query.variables)) {
        const known = this.variables.get(name);
        wanted.push([known && known.column.values, known ? known.values.indexOf(value) + 1 : 0]);
      }
      if (wanted.some(([, number]) => number === 0)) return new Uint32Array(0);
      const scored = low > 0 || high < 1;
      const found = new Uint32Array(this.rows);
      let length = 0;
      for (let row = 0; row < this.rows; row += 1) {
        const reason = this.reason.values[row];
        if (status === "accepted" ? reason !== 0 : status === "rejected" && reason === 0) continue;
        if (query.reason >= 0 && reason !== query.reason) continue;
        if (query.split >= 0 && this.split.values[row] !== query.split) continue;
        if (query.stage >= 0 && this.stage.values[row] !== query.stage) continue;
        if (prompts !== null && prompts[this.prompt.values[row]] === 0) continue;
        if (query.class >= 0 && !this.hasClass(row, query.class)) continue;
        if (scored) {
          const score = this.lowest.values[row] / 255;
          if (this.count.values[row] === 0 || score < low - 0.002 || score > high + 0.002) continue;
        }
        if (wanted.some(([column, number]) => column[row] !== number)) continue;
        found[length] = row;
        length += 1;
      }
      const rows = found.slice(0, length);
      const { lowest } = this;
      if (query.order === "low") rows.sort((one, two) => lowest.values[one] - lowest.values[two] || one - two);
      if (query.order === "high") rows.sort((one, two) => lowest.values[two] - lowest.values[one] || one - two);
      if (query.order === "many") rows.sort((one, two) => this.count.values[two] - this.count.values[one] || one - two);
      return rows;
    }

    promptsWith(words) {
      const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
      return Uint8Array.from(this.lower, (text) => (wanted.every((word) => text.includes(word)) ? 1 : 0));
    }

    hasClass(row, number) {
      const begin = this.first.values[row];
      const classes = this.objects.class.values;
      for (let at = begin; at < begin + this.count.values[row]; at += 1) if (classes[at] === number) return true;
      return false;
    }

    // Calls back with the number of each object of the rows.
    eachObject(rows, callback) {
      for (const row of rows) {
        const begin = this.first.values[row];
        for (let at = begin; at < begin + this.count.values[row]; at += 1) callback(at, row);
      }
    }
  }

  return { Table, NO_SPLIT, NO_OVERLAP };
})();
