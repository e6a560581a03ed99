"""What a notebook and the jobs both call: each public function of `ice_ray`, a file each."""
