"""A node that runs each container as a local process: no root, no images, no container runtime.

It owes the control plane what a kubelet owes it, so Jobs, scheduling, retries, evictions and deletion are the
real ones. It differs from a kubelet in what follows, all of it because an ordinary user cannot make
namespaces everywhere:

- No mount namespace. A volume is a directory of the pod's own; every occurrence of a `mountPath` in the
  container's command, args and env values is replaced by that directory (`paths`). A program that has the
  path built in does not find it.
- The termination message is read from the file that `DIFFUGEN_TERMINATION_LOG` names in every container's
  environment; the text `/dev/termination-log`, or the container's own `terminationMessagePath`, is replaced
  like a mount path.
- Images are names. A known one (`images`) means "run this in the project's own environment".
- No limits are enforced but that of memory (`memory`): neither CPU nor security contexts (they are admitted and
  checked by the API server). `OMP_NUM_THREADS` asks containers to share the cores.
- `HOME` and `TMPDIR` are directories of the container's own. The host's other files can be seen.
- Each pod has an address of its own from 127.0.0.0/8, which only this machine reaches, and which Services
  cannot list.
- No probes, no lifecycle hooks, no exec: a container is ready once it runs. ConfigMaps do not change under a
  running pod.
"""
