// Inputs of an application: what they are, an example, and as texts.

const DATATYPES = {
  int32: ["INT32", "np.int32"], int64: ["INT64", "np.int64"], float32: ["FP32", "np.float32"], float64: ["FP64", "np.float64"],
  uint8: ["UINT8", "np.uint8"], bool: ["BOOL", "np.bool_"], string: ["BYTES", "np.object_"], bytes: ["BYTES", "np.object_"],
};

/**
 * @typedef {{dtype: string, shape: (number | null)[]}} InputType shape: null for any length; of a text or bytes []
 * @param {string} text e.g. "float64[784]"
 * @returns {InputType}
 */
export function readType(text) {
  const [, dtype, inside] = /^(\w+)(?:\[(.*)\])?$/.exec(text) ?? [null, text, undefined];
  const shape = inside ? inside.split(",").map((size) => (size.trim() === "*" ? null : Number(size))) : [];
  return { dtype, shape };
}

/**
 * An input of the type: zeros, or a text.
 * @param {InputType} type
 * @returns {any}
 */
export function exampleOf({ dtype, shape }) {
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
    `print(client.infer(${JSON.stringify(application)}, [tensor]${parameters}${headers}).as_numpy("output"))`,
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

/** A text as one word of a shell. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A JSON value as Python writes it. */
function python(value) {
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "boolean") return value ? "True" : "False";
  return value === null ? "None" : JSON.stringify(value);
}
