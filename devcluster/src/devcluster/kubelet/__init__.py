"""A real node: containerd, a kubelet, kube-proxy and CoreDNS, for images and pods as users have them. Needs root.

All of it runs in its own network namespace and mount namespace. When its processes have ended, for any reason, the
kernel removes the bridge, the veth pair, the iptables rules and every mount. A folder and empty cgroups are left, which
the guard removes. The network of the node:

    the machine                    | the node's network namespace
    API server  10.x.y.1 --- veth --- 10.x.y.2  kubelet, kube-proxy, CoreDNS
                                   |  10.x.y.129  bridge --- pods 10.x.y.130 to .254

The machine has a route to the pods, so a test can connect to them. Only pods can use Services (10.99.0.0/16) and names.
"""
