"""A node that runs each container as a local process: no root, no images, no container runtime.

It reports to the control plane as a kubelet does, so Jobs, scheduling, retries, evictions and deletion work as in any
cluster. It differs from a kubelet in the following points, because an ordinary user cannot create namespaces on every
machine:

- No mount namespace. A volume is a directory of the pod. Every `mountPath` in the container's command, args and env
  values is replaced by that directory (`paths`). A program with a path in its own code does not find the directory.
- The termination message is read from the file that `DIFFUGEN_TERMINATION_LOG` names in every container's
  environment; the text `/dev/termination-log`, or the container's own `terminationMessagePath`, is replaced
  like a mount path.
- Images are names. A known one (`images`) means "run this in the project's own environment". An image volume is a
  folder that was given for the image's digest (`Cluster.add_image`); it is not read-only.
- The generator's workers and the operator are forks of a process that has imported their libraries (`fork_server`),
  unless their environment has a variable that libraries read when they are imported.
- Only the memory limit is enforced (`memory`), not CPU limits and not security contexts (the API server admits and
  checks these). `OMP_NUM_THREADS` limits the threads of each container, so that containers share the cores.
- Each container has its own directories for `HOME` and `TMPDIR`. It can read the host's other files.
- Each pod has its own address from 127.0.0.0/8. Only this machine can reach it, and Services cannot list it.
- No probes, no lifecycle hooks, no exec: a container is ready as soon as it runs. A running pod does not see changes
  of its ConfigMaps.
"""
