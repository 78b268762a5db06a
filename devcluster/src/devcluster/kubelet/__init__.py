"""A real node: containerd, a kubelet, kube-proxy and CoreDNS, for images and pods as users have them. Needs root.

All of it runs in a network and a mount namespace of its own. When its processes are gone, however they ended, the
kernel takes down the bridge, the veth pair, the iptables rules and every mount with them; what is left is a folder
and empty cgroups, which the guard removes. The node looks like this:

    the machine                    | the node's network namespace
    API server  10.x.y.1 --- veth --- 10.x.y.2  kubelet, kube-proxy, CoreDNS
                                   |  10.x.y.129  bridge --- pods 10.x.y.130 to .254

The machine has a route to the pods, so a test can talk to them. Services (10.99.0.0/16) and names are the pods' alone.
"""
