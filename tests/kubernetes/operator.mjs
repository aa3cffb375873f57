// Holds resources of the Prometheus operator, one JSON file each, to the operator's own types. Its schemas let pass
// what they do not know, so a field that they never look at is a fault as well: it is misspelt, or in the wrong
// place.
import { readFileSync } from "node:fs";
import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";

const kinds = { PodMonitor, PrometheusRule };

// The value, and a way to ask which of its fields nobody has read.
function watched(value, path) {
  if (typeof value !== "object" || value === null) return { seen: value, unread: () => [] };
  const read = new Set();
  const inner = Object.fromEntries(Object.keys(value).map((key) => [key, watched(value[key], `${path}.${key}`)]));
  const get = (_, key) => (read.add(key), Object.hasOwn(inner, key) ? inner[key].seen : value[key]);
  const unread = () =>
    Object.keys(inner).flatMap((key) => (read.has(key) ? inner[key].unread() : [`${path}.${key} is no field of it`]));
  return { seen: new Proxy(value, { get }), unread };
}

const faults = process.argv.slice(2).flatMap((file) => {
  const resource = JSON.parse(readFileSync(file, "utf8"));
  const kind = kinds[resource.kind];
  if (!kind) return [`${resource.kind} is not known here`];
  const { seen, unread } = watched(resource, resource.kind);
  try {
    kind.prototype.validate.call(seen);
  } catch (error) {
    return [`${resource.kind}: ${error.message}`];
  }
  return unread();
});
faults.forEach((fault) => console.log(fault));
process.exitCode = faults.length > 0 ? 1 : 0;
