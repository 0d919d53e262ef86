// Inputs of an application: what they are, an example, and as texts.

const DATATYPES = {
  int32: ["INT32", "np.int32"], int64: ["INT64", "np.int64"], float32: ["FP32", "np.float32"], float64: ["FP64", "np.float64"],
  uint8: ["UINT8", "np.uint8"], bool: ["BOOL", "np.bool_"], string: ["BYTES", "np.object_"], bytes: ["BYTES", "np.object_"],
};

/**
 * @typedef {{name: string, type: InputType, isNullable: boolean, fallback: any, categories: any[]}} Field fallback:
 *   undefined if there is none
 * @typedef {{dtype: string, shape: (number | null)[], fields?: Field[]}} InputType shape: null for any length; of a text,
 *   bytes or a record []
 * @param {string} text e.g. "float64[784]", or "age: float64, job: string?"
 * @returns {InputType}
 */
export function readType(text) {
  if (text.includes(":")) return { dtype: "record", shape: [], fields: partsOf(text).map(readField) };
  const [, dtype, inside] = /^(\w+)(?:\[(.*)\])?$/.exec(text) ?? [null, text, undefined];
  const shape = inside ? inside.split(",").map((size) => (size.trim() === "*" ? null : Number(size))) : [];
  return { dtype, shape };
}

/** The parts of a record's type: what is between the commas outside of quotes and brackets. */
function partsOf(text) {
  const parts = [];
  let depth = 0, isQuoted = false, isEscaped = false, start = 0;
  for (let place = 0; place < text.length; place++) {
    const character = text[place];
    if (isQuoted) {
      isQuoted = isEscaped || character !== '"';
      isEscaped = !isEscaped && character === "\\";
    } else if (character === '"') isQuoted = true;
    else if ("[{".includes(character)) depth++;
    else if ("]}".includes(character)) depth--;
    else if (character === "," && !depth) {
      parts.push(text.slice(start, place));
      start = place + 1;
    }
  }
  return [...parts, text.slice(start)];
}

/**
 * @param {string} text e.g. 'sex: string{"female", "male"}?' or "visits: int64 = 1"
 * @returns {Field}
 */
function readField(text) {
  const [, quotedName, plainName, rest] = /^\s*(?:("(?:[^"\\]|\\.)*")|([^:]*?))\s*:\s*([^]*)$/.exec(text);
  const [, kind, listed, mark, fallback] = /^(\w+(?:\s*\[[^\]]*\])?)\s*(?:\{([^]*)\})?\s*(\?)?\s*(?:=\s*([^]*))?$/.exec(rest);
  return {
    name: quotedName ? JSON.parse(quotedName) : plainName,
    // Without a shape a field is one value, and an input a list.
    type: readType(kind.replaceAll(" ", "")),
    isNullable: Boolean(mark),
    fallback: fallback === undefined ? undefined : JSON.parse(fallback),
    categories: listed === undefined ? [] : JSON.parse(`[${listed}]`),
  };
}

/**
 * An input of the type: zeros, or a text.
 * @param {InputType} type
 * @returns {any}
 */
export function exampleOf({ dtype, shape, fields = [] }) {
  if (dtype === "record") {
    return Object.fromEntries(fields.map(({ name, type, fallback, categories }) => [name, fallback ?? categories[0] ?? exampleOf(type)]));
  }
  if (dtype === "string") return "a text";
  if (dtype === "bytes") return btoa("bytes");
  return shape.reduceRight((/** @type {any} */ inner, size) => Array.from({ length: size ?? 1 }, () => inner), dtype === "bool" ? false : 0);
}

/**
 * The shape of an input, for tensors.
 * @param {any} input
 * @returns {number[]}
 */
function shapeOf(input) {
  return Array.isArray(input) ? [input.length, ...(input.length ? shapeOf(input[0]) : [])] : [];
}

/**
 * How to ask the same in other ways.
 * @param {object} query
 * @param {string} query.url of the query port
 * @param {string} query.application
 * @param {InputType} query.type
 * @param {any} query.input
 * @param {string} query.context empty if there is none
 * @param {boolean} query.hasKey whether a key is sent
 * @returns {{name: string, code: string}[]}
 */
export function samples({ url, application, type, input, context, hasKey }) {
  const body = JSON.stringify({ input, ...(context && { context }) });
  const key = hasKey ? ` -H "Authorization: Bearer $CLIPPER_API_KEY"` : "";
  if (type.fields) return recordSamples({ url, application, type, input, context, hasKey });
  const [datatype, kind] = DATATYPES[type.dtype];
  const isBytes = type.dtype === "bytes";
  const value = isBytes ? `base64.b64decode(${JSON.stringify(input)})` : python(input);
  const shape = python([1, ...shapeOf(input)]);
  const parameters = context ? `, parameters={"context": ${JSON.stringify(context)}}` : "";
  const headers = hasKey ? `, headers={"Authorization": "Bearer " + os.environ["CLIPPER_API_KEY"]}` : "";
  const tritonLines = [
    ...(isBytes ? ["import base64"] : []), ...(hasKey ? ["import os"] : []),
    "import numpy as np", "import tritonclient.http as http", "",
    `client = http.InferenceServerClient("${url.replace(/^https?:\/\//, "")}"${url.startsWith("https") ? ", ssl=True" : ""})`,
    `tensor = http.InferInput("input", ${shape}, "${datatype}")`,
    `tensor.set_data_from_numpy(np.array([${value}], ${kind}))`,
    `print(client.infer(${JSON.stringify(application)}, [tensor]${parameters}${headers}).get_response())`,
  ];
  return [
    { name: "curl", code: `curl${key} ${quoted(`${url}/${encodeURIComponent(application)}/predict`)} -d ${quoted(body)}` },
    {
      name: "Python",
      code: [
        ...(isBytes ? ["import base64", ""] : []), "from clipper import Clipper", "", "with Clipper.connect() as clipper:",
        `    print(clipper.predict(${JSON.stringify(application)}, ${value}${context && `, context=${JSON.stringify(context)}`}))`,
      ].join("\n"),
    },
    { name: "tritonclient", code: tritonLines.join("\n") },
  ];
}

/** As ``samples``, of a record: tritonclient has a tensor for each field that is there. */
function recordSamples({ url, application, type, input, context, hasKey }) {
  const body = JSON.stringify({ input, ...(context && { context }) });
  const key = hasKey ? ` -H "Authorization: Bearer $CLIPPER_API_KEY"` : "";
  const tensors = type.fields.filter(({ name }) => input[name] !== null && input[name] !== undefined).map(({ name, type: { dtype } }) => {
    const [datatype, kind] = DATATYPES[dtype];
    return `    (${JSON.stringify(name)}, "${datatype}", np.array([${python(input[name])}], ${kind})),`;
  });
  const triton = [
    ...(hasKey ? ["import os"] : []), "import numpy as np", "import tritonclient.http as http", "",
    "tensors = []", "for name, datatype, values in [", ...tensors, "]:",
    "    tensors.append(http.InferInput(name, values.shape, datatype))", "    tensors[-1].set_data_from_numpy(values)",
    `client = http.InferenceServerClient("${url.replace(/^https?:\/\//, "")}"${url.startsWith("https") ? ", ssl=True" : ""})`,
    `print(client.infer(${JSON.stringify(application)}, tensors${context ? `, parameters={"context": ${JSON.stringify(context)}}` : ""}${hasKey ? `, headers={"Authorization": "Bearer " + os.environ["CLIPPER_API_KEY"]}` : ""}).get_response())`,
  ];
  return [
    { name: "curl", code: `curl${key} ${quoted(`${url}/${encodeURIComponent(application)}/predict`)} -d ${quoted(body)}` },
    {
      name: "Python",
      code: [
        "from clipper import Clipper", "", "with Clipper.connect() as clipper:",
        `    print(clipper.predict(${JSON.stringify(application)}, ${python(input)}${context && `, context=${JSON.stringify(context)}`}))`,
      ].join("\n"),
    },
    { name: "tritonclient", code: triton.join("\n") },
  ];
}

/** A text as one word of a shell. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A JSON value as Python writes it. */
function python(value) {
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "boolean") return value ? "True" : "False";
  if (value !== null && typeof value === "object") {
    return `{${Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each)}`).join(", ")}}`;
  }
  return value === null ? "None" : JSON.stringify(value);
}
