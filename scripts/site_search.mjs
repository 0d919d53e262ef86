// Asks the search of a site as its readers do, and fails where the first hit is on another page: node site_search.mjs FOLDER.
// The site's own program searches, which is a worker of its pages.
import { readFileSync, readdirSync } from "node:fs";

// What people type, and the page that answers it.
const TASKS = {
  "deploy a PyTorch model": "pytorch",
  "bandit per user": "policies",
  "keys and TLS": "keys-and-tls",
  "Kubernetes": "kubernetes",
  "why are my answers defaults": "troubleshooting",
  "how do I deploy a PyTorch model": "pytorch",
  "serve a PyTorch model": "pytorch",
  "one bandit for every user": "policies",
  "personalize": "policies",
  "contextual bandit": "policies",
  "set up TLS and API keys": "keys-and-tls",
  "authentication": "keys-and-tls",
  "https": "keys-and-tls",
  "how do I run on Kubernetes": "kubernetes",
  "k8s": "kubernetes",
  "helm": "kubernetes",
  "why do I get the default": "troubleshooting",
  "too many defaults": "troubleshooting",
  "scikit-learn": "scikit-learn",
  "TensorFlow": "tensorflow",
  "XGBoost": "xgboost",
  "MLflow model": "mlflow",
  "ONNX model": "onnx",
  "write a model in Python": "python-models",
  "GPU": "gpus",
  "Docker": "docker",
  "systemd": "deploying",
  "API key": "keys-and-tls",
  "Prometheus": "monitoring",
  "Grafana": "monitoring",
  "A/B test": "experiments",
  "new version": "newcomers",
  "feedback": "feedback",
  "backup": "upgrades",
  "upgrade": "upgrades",
  "environment variables": "secrets",
  "pipeline": "pipelines",
  "load test": "load",
  "Ray Serve": "moving",
  "what is stable": "stability",
  "experimental": "stability",
  "production checklist": "production-checklist",
};

const [site] = process.argv.slice(2);
const index = JSON.parse(readFileSync(`${site}/search.json`, "utf8"));
const workers = `${site}/assets/javascripts/workers`;
const [program] = readdirSync(workers).filter((name) => name.startsWith("search."));
let answered;
globalThis.self = { postMessage: (message) => answered(message) };
(0, eval)(readFileSync(`${workers}/${program}`, "utf8"));

// The program's messages: 0 takes the index, 2 a query; 3 answers a query.
function send(type, data) {
  return new Promise((resolve) => {
    answered = resolve;
    self.onmessage({ data: { type, data } });
  });
}

await send(0, index);
let wrong = 0;
for (const [input, page] of Object.entries(TASKS)) {
  const answer = await send(2, { input });
  const first = answer.data.items.map((hit) => index.items[hit.id].location)[0];
  if (first?.split(/[.#]/)[0] !== page) {
    wrong += 1;
    console.error(`the search for "${input}" finds ${first} first, and not ${page}`);
  }
}
console.log(`${Object.keys(TASKS).length - wrong} of ${Object.keys(TASKS).length} searches find their page first`);
process.exit(wrong ? 1 : 0);
